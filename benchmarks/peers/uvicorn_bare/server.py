"""``python -m benchmarks.peers.uvicorn_bare.server <certificates or ->``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.driver import run
from benchmarks.order import Order
from benchmarks.peers.uvicorn_server import serve

_decode = msgspec.json.Decoder(Order).decode
_encode = msgspec.json.Encoder().encode


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    answer = _encode(_decode(body))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def main() -> None:
    await serve(app, None if sys.argv[1] == "-" else Path(sys.argv[1]))


if __name__ == "__main__":
    run(main)
