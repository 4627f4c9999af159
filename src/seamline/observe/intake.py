"""Where the processes of one machine bring what they have to tell: batches over a Unix socket.

A message is a :class:`~seamline.observe.records.Batch` as MessagePack behind its length in four bytes (big-endian).
Nobody is answered. Who sends what is no batch is cut off; it connects anew and goes on.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

import msgspec

from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.signal import log
from seamline.observe.records import Batch

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
_LENGTH = struct.Struct(">I")
_log = log.get("seamline.observe")


class Encoder:
    """Batches as they travel."""

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()

    def encode(self, batch: Batch) -> bytes:
        """Raises OverflowError for one that nobody would take."""
        body = self._encoder.encode(batch)
        if len(body) > MESSAGE_BYTES_MAX:
            raise OverflowError(f"a batch of {len(body)} bytes is above {MESSAGE_BYTES_MAX}")
        return _LENGTH.pack(len(body)) + body


class Intake:
    """Reads from everyone who connects.

    Args:
        take: what is done with each batch; it must not wait.
    """

    def __init__(self, take: Callable[[Batch], None]) -> None:
        self._take = take
        self._decoder = msgspec.msgpack.Decoder(Batch)
        self._owner = TaskOwner("telemetry intake")
        self.refused = 0
        """Connections that were cut off."""

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        try:
            while True:
                connection, _ = await loop.sock_accept(listener)
                connection.setblocking(False)
                self._owner.spawn(self._read(connection), name="telemetry of one process")
        finally:
            await self._owner.stop()

    async def _read(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        try:
            while True:
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                if length > MESSAGE_BYTES_MAX:
                    self._refuse(f"{length} bytes are announced")
                    return
                self._take(self._decoder.decode(await reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        except msgspec.MsgspecError as error:
            self._refuse(str(error))
        finally:
            writer.close()

    def _refuse(self, why: str) -> None:
        self.refused += 1
        _log.warning("telemetry that cannot be read was cut off: %s", why)
