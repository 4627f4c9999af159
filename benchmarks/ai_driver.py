"""``python -m benchmarks.ai_driver <json>``: streams from one server, timed from the request to the first event.

The JSON names ``port``, ``path``, ``body`` (text) and ``headers``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import perf_counter, process_time
from typing import Any, cast

from benchmarks.driver import Measure, run, serve_commands
from benchmarks.figures import percentile
from benchmarks.http_client import request

_END = b"0\r\n\r\n"


class _Stream(asyncio.Protocol):
    """One connection; one stream at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._got = b""
        self._first_at = 0.0
        self._over: asyncio.Future[float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_exception(exc or ConnectionError("closed in the middle of a stream"))

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._first_at and b"data: " in self._got:
            self._first_at = perf_counter()
        if self._got.endswith(_END) and self._over is not None and not self._over.done():
            if self._got.startswith(b"HTTP/1.1 200") and b"[DONE]" in self._got:
                self._over.set_result(self._first_at)
            else:
                self._over.set_exception(ConnectionError(f"not the answer that was meant: {self._got[:200]!r}"))

    async def ask(self, message: bytes) -> float:
        """Seconds to the first event; returns when all has come."""
        self._got, self._first_at = b"", 0.0
        self._over = asyncio.get_running_loop().create_future()
        began = perf_counter()
        self._transport.write(message)
        return await self._over - began


async def main() -> None:
    options: dict[str, Any] = json.loads(sys.argv[1])
    headers = {"content-type": "application/json"} | options.get("headers", {})
    message = request("POST", options["path"], options["body"].encode(), headers)
    loop = asyncio.get_running_loop()
    idle: list[_Stream] = []

    async def perform(command: dict[str, Any]) -> Measure:
        until = perf_counter() + command["seconds"]
        firsts: list[float] = []
        while len(idle) < command["in_flight"]:
            idle.append((await loop.create_connection(_Stream, "127.0.0.1", options["port"]))[1])

        async def caller(stream: _Stream) -> None:
            while perf_counter() < until:
                firsts.append(await stream.ask(message))

        began, cpu = perf_counter(), process_time()
        async with asyncio.TaskGroup() as group:
            for stream in idle[: command["in_flight"]]:
                group.create_task(caller(stream))
        firsts.sort()
        return Measure(
            calls=len(firsts),
            errors=0,
            elapsed_s=perf_counter() - began,
            client_cpu_s=process_time() - cpu,
            p50_ms=1000 * percentile(firsts, 0.5),
            p99_ms=1000 * percentile(firsts, 0.99),
        )

    await serve_commands(perform)


if __name__ == "__main__":
    run(main)
