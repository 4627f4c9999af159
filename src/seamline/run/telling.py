"""Tells the observer what a process has to tell, four times a second, without ever being in anybody's way.

While the observer is away nothing is collected: counts go on where they are made, spans and lines stay in their bounded
rings and push out the oldest. What was collected and could not be sent is lost and counted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from seamline.kernel.signal import log
from seamline.observe.intake import Encoder
from seamline.observe.records import Batch
from seamline.run.sockets import unix_address

TELLING_SOCKET = Path("run", "observe.sock")
EVERY_S = 0.25
_AWAY_S = 0.5
_UNSENT_BYTES_MAX = 8 * 1024 * 1024
_LAST_S = 0.5
_log = log.get("seamline.run")
Collect = Callable[[], Iterable[Batch]]


class Teller:
    """Sends what ``collect`` gives to the socket at ``path``, for as long as :meth:`run` runs."""

    def __init__(self, path: Path, collect: Collect) -> None:
        self._path = path
        self._collect = collect
        self._encoder = Encoder()
        self._writer: asyncio.StreamWriter | None = None
        self._dropped: Counter[str] = Counter()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S if await self._connected() else _AWAY_S)
            self._tell()

    async def finish(self) -> None:
        """What is left, and the end."""
        writer = self._writer
        if writer is None:
            return
        self._tell()
        try:
            async with asyncio.timeout(_LAST_S):
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError):
            writer.transport.abort()

    async def _connected(self) -> bool:
        if self._writer is not None and self._writer.is_closing():
            self._writer = None
        if self._writer is None:
            try:
                with unix_address(self._path) as address:
                    _, self._writer = await asyncio.open_unix_connection(address)
            except OSError:  # it is not there yet, or will be again
                return False
        return True

    def _tell(self) -> None:
        writer = self._writer
        if writer is None or writer.is_closing():
            return
        try:
            for batch in self._collect():
                self._send(writer, batch)
        except Exception:  # telemetry must not end what it tells of
            _log.exception("telemetry could not be collected")

    def _send(self, writer: asyncio.StreamWriter, batch: Batch) -> None:
        if writer.transport.get_write_buffer_size() > _UNSENT_BYTES_MAX:
            self._drop(batch)
            return
        self._dropped.update(batch.dropped)
        if self._dropped:
            batch = batch_with(batch, dict(self._dropped))
        try:
            writer.write(self._encoder.encode(batch))
        except (OverflowError, ValueError, TypeError) as error:
            _log.warning("telemetry that cannot be written was dropped: %s", error)
            self._dropped.subtract(batch.dropped)
            self._drop(batch)
            return
        self._dropped.clear()

    def _drop(self, batch: Batch) -> None:
        self._dropped.update(spans=len(batch.spans), logs=len(batch.logs), traffic=len(batch.traffic))
        self._dropped.update(points=len(batch.points), profiles=len(batch.profiles))
        self._dropped = +self._dropped


def batch_with(batch: Batch, dropped: dict[str, int]) -> Batch:
    """The batch, saying what was not told."""
    import msgspec

    return msgspec.structs.replace(batch, dropped=dropped)
