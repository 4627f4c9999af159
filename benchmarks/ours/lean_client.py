"""``python -m benchmarks.ours.lean_client <certificates> <port>``: frames without a mesh, to fill a server.

What the lean HTTP client is to the HTTP servers: the request is made once, the answer is counted and not decoded. The
server does all of its work, identity, policy, deadline, limits and statistics included.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import cast

import msgspec

from benchmarks.certificates import client_context
from benchmarks.driver import Call, drive
from benchmarks.order import SAMPLE
from seamline.kernel.signal.trace import TraceContext
from seamline.kernel.wire import frames
from seamline.kernel.wire.frames import CallHead, FrameReader

TIMEOUT_MS = 10_000
SERVER_NAME = "orders.bench.seamline"


class Refused(RuntimeError):
    """The server answered with something else than a result."""


class LeanConnection(asyncio.Protocol):
    def __init__(self) -> None:
        head = CallHead("Orders.place", TIMEOUT_MS, trace=TraceContext(1, 0, sampled=False).to_bytes(1))
        call = frames.call_frame(0, head, msgspec.json.encode({"order": SAMPLE}))
        self._length, self._rest = len(call) - frames.HEADER_BYTES, call[frames.HEADER_BYTES :]
        self._reader = FrameReader(self._frame, self._frame)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._stream = 0
        self._out: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        for waiter in self._waiting.values():
            waiter.set_exception(exc or ConnectionResetError("the server closed the connection"))
        self._waiting.clear()

    def call(self) -> asyncio.Future[None]:
        self._stream += 1
        waiter = self._waiting[self._stream] = self._loop.create_future()
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frames.HEADER.pack(self._length, frames.CALL, self._stream) + self._rest)
        return waiter

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()

    def _frame(self, kind: int, stream: int, payload: bytes | int) -> None:
        waiter = self._waiting.pop(stream, None)
        if waiter is None:
            return
        if kind == frames.RESULT:
            waiter.set_result(None)
        else:
            waiter.set_exception(Refused(f"frame of type {kind}: {payload!r}"))


async def connect() -> Call:
    certificates, port = Path(sys.argv[1]), int(sys.argv[2])
    tls = client_context(certificates, "caller")
    tls.set_alpn_protocols([frames.ALPN])
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        LeanConnection, "127.0.0.1", port, ssl=tls, server_hostname=SERVER_NAME
    )
    await connection.call()
    return connection.call


if __name__ == "__main__":
    drive(connect)
