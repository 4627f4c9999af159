// Calls a contract by the JSON wire with nothing but Node: fetch, a client certificate, and the server's SPIFFE ID.
import { readFileSync } from "node:fs";

const [base, folder, spiffeId, serverName] = process.argv.slice(2);

await fetch("data:,").then((r) => r.text()); // loads the HTTP client whose Agent takes the certificate
const Agent = globalThis[Symbol.for("undici.globalDispatcher.1")].constructor;
const dispatcher = new Agent({
  connect: {
    ca: readFileSync(`${folder}/bundle.pem`),
    cert: readFileSync(`${folder}/chain.pem`),
    key: readFileSync(`${folder}/key.pem`),
    servername: serverName,
    checkServerIdentity: (_, certificate) =>
      certificate.subjectaltname.split(", ").includes(`URI:${spiffeId}`) ? undefined : new Error(`a stranger: ${certificate.subjectaltname}`),
  },
});

async function call(method, parameters, headers = {}) {
  const response = await fetch(`${base}/${method}`, {
    method: "POST",
    headers: { "content-type": "application/json", "connect-protocol-version": "1", ...headers },
    body: JSON.stringify(parameters),
    dispatcher,
  });
  return { status: response.status, body: await response.json() };
}

async function stream(method, parameters) {
  const message = Buffer.from(JSON.stringify(parameters));
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  const response = await fetch(`${base}/${method}`, {
    method: "POST",
    headers: { "content-type": "application/connect+json", "connect-protocol-version": "1" },
    body: Buffer.concat([head, message]),
    dispatcher,
  });
  const body = Buffer.from(await response.arrayBuffer());
  const items = [];
  for (let at = 0; at < body.length; ) {
    const length = body.readUInt32BE(at + 1);
    items.push({ flags: body[at], message: JSON.parse(body.subarray(at + 5, at + 5 + length).toString()) });
    at += 5 + length;
  }
  return items;
}

const query = new URLSearchParams({ connect: "v1", encoding: "json", message: JSON.stringify({ sku: "mug" }) });
const got = await fetch(`${base}/shop.Stock/look?${query}`, { dispatcher });
console.log(
  JSON.stringify({
    take: await call("shop.Stock/take", { sku: "mug", count: 2 }),
    fault: await call("shop.Stock/fail", { how: "fault" }),
    late: await call("shop.Stock/dawdle", { seconds: 30 }, { "connect-timeout-ms": "50" }),
    wrong: await call("shop.Stock/take", { sku: 7 }),
    unknown: await call("shop.Stock/burn", {}),
    get: { status: got.status, body: await got.json() },
    stream: await stream("shop.Stock/count", { upto: 3 }),
    broken: await stream("shop.Stock/count", { upto: 3, fail_at: 1 }),
  }),
);
