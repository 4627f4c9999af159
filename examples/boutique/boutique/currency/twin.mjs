// The inside of currency once more, in JavaScript and with nothing but node: the rules are those of module.py.
// `seamline up --topology polyglot` starts it behind a sidecar, which is the only one that can reach its socket.

import fs from "node:fs";
import http from "node:http";

const SOURCE = fs.readFileSync(new URL("rates.py", import.meta.url), "utf8");
const WORDS = SOURCE.match(/_TABLE = """([^"]*)"""/)[1].trim().split(/\s+/);
const WITHOUT_CENTS = new Set(["ISK", "JPY", "KRW"]);

/** An exact decimal: digits and how many of them stand behind the point. */
function decimal(text) {
  const found = /^(-?)(\d+)(?:\.(\d*))?(?:[eE]([+-]?\d{1,3}))?$/.exec(text);
  if (!found) throw new TypeError(`${text} is not a decimal`);
  const [, sign, whole, behind = "", exponent = "0"] = found;
  const scale = behind.length - Number(exponent);
  const digits = BigInt(`${sign}${whole}${behind}`);
  return scale >= 0 ? { digits, scale } : { digits: digits * 10n ** BigInt(-scale), scale: 0 };
}

const PER_EURO = new Map();
for (let at = 0; at < WORDS.length; at += 2) PER_EURO.set(WORDS[at], decimal(WORDS[at + 1]));
const SUPPORTED = [...PER_EURO.keys()].sort();

/** The quotient of two integers, rounded half to even. */
function rounded(above, below) {
  const sign = above < 0n ? -1n : 1n;
  const positive = above * sign;
  let quotient = positive / below;
  const twice = (positive % below) * 2n;
  if (twice > below || (twice === below && quotient % 2n === 1n)) quotient += 1n;
  return quotient * sign;
}

class CurrencyUnknown extends Error {}

function rate(currency) {
  const found = PER_EURO.get(currency);
  if (!found) throw new CurrencyUnknown(currency);
  return found;
}

function convert({ money, to }) {
  const [from, into, amount] = [rate(money.currency), rate(to), decimal(money.amount)];
  const places = WITHOUT_CENTS.has(to) ? 0 : 2;
  const above = amount.digits * into.digits * 10n ** BigInt(from.scale + places);
  const below = from.digits * 10n ** BigInt(amount.scale + into.scale);
  const units = rounded(above, below);
  const text = (units < 0n ? -units : units).toString().padStart(places + 1, "0");
  const shown = places ? `${text.slice(0, -places)}.${text.slice(-places)}` : text;
  return { currency: to, amount: units < 0n || amount.digits < 0n ? `-${shown}` : shown };
}

const METHODS = {
  [`/${process.env.SEAMLINE_APP}.Currency/supported`]: () => SUPPORTED,
  [`/${process.env.SEAMLINE_APP}.Currency/convert`]: convert,
};

/** A failure as the JSON wire writes it; a declared fault also says its name and its fields. */
function failure(error) {
  if (!(error instanceof CurrencyUnknown)) return [500, { code: "internal", message: "the call failed" }];
  const body = {
    code: "aborted",
    message: "The shop has no rate for this currency.",
    error: "CurrencyUnknown",
    detail: { currency: error.message },
  };
  const value = Buffer.from(JSON.stringify(body)).toString("base64").replace(/=+$/, "");
  return [409, { code: body.code, message: body.message, details: [{ type: "seamline.Error", value }] }];
}

async function answer(request) {
  const url = new URL(request.url, "http://currency");
  const method = METHODS[url.pathname];
  if (!method) return [404, { code: "unimplemented", message: `there is no ${url.pathname}` }];
  // One place for the arguments, the one that policy was asked about.
  let text = "";
  for await (const part of request) text += part;
  if (request.method === "GET") text = url.searchParams.get("message");
  try {
    return [200, method(JSON.parse(text || "{}"))];
  } catch (error) {
    if (!(error instanceof CurrencyUnknown)) console.error(error);
    return failure(error);
  }
}

const server = http.createServer(async (request, response) => {
  const [status, body] = await answer(request);
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
});
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
const listen = process.env.SEAMLINE_LISTEN;
if (listen.startsWith("/")) fs.rmSync(listen, { force: true }); // of one that was killed
server.listen(/^\d+$/.test(listen) ? { host: "127.0.0.1", port: Number(listen) } : listen);
