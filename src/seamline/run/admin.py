"""The admin socket from outside: what the command line and tests ask a running supervisor.

One line of JSON asks: ``{"op": "status"}``, ``{"op": "switch", "topology": "services"}``. Lines of JSON answer:
any number of ``{"progress": "..."}`` (or ``{"top": {...}}``, ``{"log": {...}}`` where asked for), and last
``{"done": true, "result": {...}}`` or ``{"error": {"code", "fact", "remedy", "place"}}``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

from seamline.kernel.errors import SeamlineError
from seamline.run.errors import ControlError, NotRunningError
from seamline.run.sockets import unix_address

LINE_BYTES_MAX = 16 * 1024 * 1024
ADMIN_SOCKET = Path("run", "admin.sock")


class RefusedError(SeamlineError):
    """What the supervisor answered, with the code that it gave."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("fact", "")), str(error.get("remedy") or ""), place=error.get("place"))
        self.code = str(error.get("code", "SL5000"))  # pyright: ignore[reportAttributeAccessIssue]


class AdminClient:
    """Asks the supervisor that holds a data directory.

    Args:
        data: the application's data directory (``settings.data_folder``).
    """

    def __init__(self, data: Path) -> None:
        self.path = data / ADMIN_SOCKET

    async def request(self, op: str, **arguments: Any) -> AsyncIterator[dict[str, Any]]:
        """Every line of the answer as it comes, the last with ``done`` or ``error``.

        Raises NotRunningError when nobody answers, or stops answering.
        """
        reader, writer = await self._connect()
        try:
            writer.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
            while True:
                line = await self._line(reader)
                yield line
                if "done" in line or "error" in line:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            raise NotRunningError(
                "the supervisor went away before it had answered", "See what it printed, or `seamline status`."
            ) from None
        finally:
            writer.close()

    async def ask(self, op: str, say: Callable[[str], None] | None = None, **arguments: Any) -> dict[str, Any]:
        """The result. ``say`` hears the progress; raises RefusedError with what the supervisor raised."""
        async for line in self.request(op, **arguments):
            if "error" in line:
                raise RefusedError(line["error"])
            if "done" in line:
                return cast("dict[str, Any]", line.get("result") or {})
            if say and "progress" in line:
                say(str(line["progress"]))
        raise ControlError("the supervisor's answer had no end")  # pragma: no cover

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            with unix_address(self.path) as address:
                return await asyncio.open_unix_connection(address, limit=LINE_BYTES_MAX)
        except OSError as error:
            raise NotRunningError(
                f"no application is running at {str(self.path.parent.parent)!r}", "Start it with `seamline up`."
            ) from error

    @staticmethod
    async def _line(reader: asyncio.StreamReader) -> dict[str, Any]:
        try:
            raw = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            raise ControlError(f"an answer is longer than {LINE_BYTES_MAX} bytes") from error
        return cast("dict[str, Any]", json.loads(raw))
