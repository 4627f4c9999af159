"""``python -m benchmarks.peers.envoy.service``: the leanest service behind a sidecar that Python allows.

HTTP/1.1 on httptools and uvloop, no framework, no TLS: what is measured is the sidecars, not the service behind them.
"""

from __future__ import annotations

import asyncio
from typing import cast

import httptools
import msgspec

from benchmarks.driver import run, say
from benchmarks.order import Order
from benchmarks.sockets import listen

_decode = msgspec.json.Decoder(Order).decode
_encode = msgspec.json.Encoder().encode


class Service(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        answer = _encode(_decode(self._body))
        self._body = b""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)
        self._transport.write(head + answer)


async def main() -> None:
    listening = listen()
    server = await asyncio.get_running_loop().create_server(Service, sock=listening)
    say({"ready": True, "port": listening.getsockname()[1]})
    await server.serve_forever()


if __name__ == "__main__":
    run(main)
