"""``python -m benchmarks.ours.ai_stub``: an engine that answers at once, always the same, as cheaply as can be.

A stream has ten pieces, the first after 20 ms, the others 5 ms apart.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import httptools

from benchmarks.driver import run, say
from benchmarks.sockets import listen

FIRST_S = 0.02
NEXT_S = 0.005
PIECES = 10
_USAGE = {"prompt_tokens": 24, "completion_tokens": PIECES, "total_tokens": 24 + PIECES}


def _head(kind: str, rest: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{rest}\r\n\r\n".encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    told = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "stub", "choices": choices}
    return b"data: " + json.dumps({**told, **more}).encode() + b"\n\n"


def _piece(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return _event([{"index": 0, "delta": delta, "finish_reason": finish}])


_SAID = {"role": "assistant", "content": " ".join(["word"] * PIECES)}
_WHOLE = json.dumps(
    {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "stub", "usage": _USAGE,
        "choices": [{"index": 0, "message": _SAID, "finish_reason": "stop"}],
    }
).encode()  # fmt: skip
_ANSWER = _head("application/json", f"content-length: {len(_WHOLE)}") + _WHOLE
_STREAM_HEAD = _head("text/event-stream", "transfer-encoding: chunked")
_FIRST = _chunk(_piece({"role": "assistant", "content": "word"}))
_NEXT = _chunk(_piece({"content": " word"}))
_LAST = _chunk(_piece({}, "stop") + _event([], usage=_USAGE) + b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Stub(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._parts: list[bytes] = []
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self._parts)
        self._parts.clear()
        if b'"stream":true' in body or b'"stream": true' in body:
            self._transport.write(_STREAM_HEAD)
            asyncio.get_running_loop().call_later(FIRST_S, self._say, 0)
        else:
            self._transport.write(_ANSWER)

    def _say(self, number: int) -> None:
        if self._transport.is_closing():
            return
        if number == PIECES:
            self._transport.write(_LAST)
            return
        self._transport.write(_NEXT if number else _FIRST)
        asyncio.get_running_loop().call_later(NEXT_S, self._say, number + 1)


async def main() -> None:
    listening = listen()
    await asyncio.get_running_loop().create_server(Stub, sock=listening)
    say({"ready": True, "port": listening.getsockname()[1]})
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(main)
