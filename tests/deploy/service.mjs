// A service in another language for the tests: answers Echo, and calls Names when it is told to.
import fs from "node:fs";
import http from "node:http";

const app = process.env.SEAMLINE_APP;

/** Calls another module over the sidecar, on behalf of whoever asked. */
function call(path, body, given) {
  const headers = { "content-type": "application/json" };
  for (const name of ["seamline-subject", "traceparent", "connect-timeout-ms", "seamline-caller", "seamline-user"])
    if (given[name]) headers[name] = given[name];
  return new Promise((resolve, reject) => {
    const request = http.request(
      { socketPath: process.env.SEAMLINE_MESH, path: `/${app}.${path}`, method: "POST", headers },
      async (response) => {
        let text = "";
        for await (const part of response) text += part;
        resolve({ status: response.statusCode, text });
      },
    );
    request.on("error", reject);
    request.end(JSON.stringify(body));
  });
}

const METHODS = {
  say: async ({ text }) => `${text} (${process.pid})`,
  heard: async (_, headers) => headers,
  slow: async ({ seconds }) => {
    await new Promise((done) => setTimeout(done, seconds * 1000));
    return "late";
  },
  ask: async ({ name }, headers) => {
    const answer = await call("Names/whole", { name }, headers);
    return `${answer.status} ${answer.text}`;
  },
  forge: async (_, headers) => {
    const answer = await call("Names/whole", { name: "x" }, { ...headers, "seamline-subject": "forged" });
    return `${answer.status} ${JSON.parse(answer.text).code}`;
  },
  die: async () => process.exit(3),
};

const server = http.createServer(async (request, response) => {
  let text = "";
  for await (const part of request) text += part;
  const headers = { ...request.headers };
  const method = request.url.split("?")[0].split("/").at(-1);
  const streamed = request.headers["content-type"]?.startsWith("application/connect+json");
  if (streamed) {
    const { to } = JSON.parse(text.slice(5));
    response.writeHead(200, { "content-type": "application/connect+json" });
    for (let at = 1; at <= Math.max(to, 1); at++) {
      const body = Buffer.from(String(at));
      const head = Buffer.alloc(5);
      head.writeUInt32BE(body.length, 1);
      response.write(Buffer.concat([head, body]));
    }
    if (to === 0) return; // goes on for ever
    response.end(Buffer.from([2, 0, 0, 0, 2, 0x7b, 0x7d]));
    return;
  }
  const result = await METHODS[method](JSON.parse(text || "{}"), headers);
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(result));
});
const listen = process.env.SEAMLINE_LISTEN;
if (listen.startsWith("/")) fs.rmSync(listen, { force: true });
server.listen(/^\d+$/.test(listen) ? { host: "127.0.0.1", port: Number(listen) } : listen);
