"""What a peer that is turned away at the door is told, and how loudly we speak of it.

The audit has every refusal, within its own bounds; the log has one line a second at most, or a stranger could fill
the disk by knocking.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import cast

import msgspec

from seamline.kernel.wire import frames
from seamline.kernel.wire.frames import ErrorBody
from seamline.mesh.connect import error_json

_log = logging.getLogger("seamline.mesh")


class Quiet:
    """Warns at most once in ``every_s`` seconds, and says then how much was left unsaid."""

    def __init__(self, every_s: float = 1.0, now: Callable[[], float] = monotonic) -> None:
        self._every_s = every_s
        self._now = now
        self._next = 0.0
        self._unsaid = 0

    def warning(self, text: str) -> None:
        now = self._now()
        if now < self._next:
            self._unsaid += 1
            return
        more = f" (and {self._unsaid} more like it)" if self._unsaid else ""
        self._next, self._unsaid = now + self._every_s, 0
        _log.warning("%s%s", text, more)


class Farewell(asyncio.Protocol):
    """Tells a peer whose certificate is genuine, but not of this application, why it is not let in; then closes."""

    def __init__(self, reason: str, alpn: str | None) -> None:
        body = ErrorBody("permission_denied", reason)
        if alpn == frames.ALPN:
            self._words = frames.frame(frames.GOAWAY, 0, msgspec.json.encode(body))
        else:
            data = msgspec.json.encode(error_json(body))
            self._words = (
                b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n%b" % (len(data), data)
            )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it
        transport.write(self._words)
        transport.close()
