"""``python -m benchmarks.ours.bare_proxy <port>``: bytes in, bytes out, on the same server and client; no more."""

from __future__ import annotations

import asyncio
import sys

from benchmarks.driver import run, say
from benchmarks.sockets import listen
from seamline.kernel.lifetime import Runners, spare_the_collector
from seamline.kernel.wire.http1 import Exchange, HttpServer
from seamline.kernel.wire.http1_client import HttpPool

_JSON = (b"content-type", b"application/json")


async def main() -> None:
    pool = HttpPool("127.0.0.1", int(sys.argv[1]), connections_max=512)

    async def handle(exchange: Exchange) -> None:
        request = exchange.request
        answer = await pool.request("POST", request.path, [_JSON], request.body or b"")
        kind = answer.header(b"content-type") or b""
        if not kind.startswith(b"text/event-stream"):
            exchange.respond(answer.status, [_JSON], await answer.read_all())
            return
        exchange.start(answer.status, [(b"content-type", kind)])
        while chunk := await answer.read():
            await exchange.write(chunk)
        exchange.end()

    listening = listen()
    server = HttpServer(handle, runners=Runners())
    await asyncio.get_running_loop().create_server(server.protocol, sock=listening)
    say({"ready": True, "port": listening.getsockname()[1]})
    spare_the_collector()
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(main)
