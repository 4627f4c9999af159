"""Bodies on their way in, all of them together within one bound.

Where there is no more room, the body that has been on its way for longest gives way: a sender that dawdles must not
keep out those that do not.
"""

from __future__ import annotations

import asyncio
from typing import Final

from seamline.kernel.wire.http1 import HttpRefusal, HttpRequest

BODY_TIMEOUT_S: Final = 30.0
_AGAIN = ((b"retry-after", b"1"),)


class Held:
    """Bytes that are held for one request, until it is let go."""

    __slots__ = ("_bodies", "data", "size")

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self.data = b""
        self.size = 0

    def let_go(self) -> None:
        self._bodies.bytes_held -= self.size
        self.size = 0
        self.data = b""


class Bodies:
    """Reads bodies of at most ``size_max``, all that are held together at most ``bytes_max``."""

    def __init__(self, size_max: int, bytes_max: int) -> None:
        self._size_max = size_max
        self._bytes_max = bytes_max
        self._coming: dict[Held, HttpRequest] = {}
        self.bytes_held = 0

    async def read(self, request: HttpRequest) -> Held:
        """The whole body. Raises HttpRefusal, Disconnected."""
        if (request.content_length or 0) > self._size_max:
            raise too_large(self._size_max)
        held = Held(self)
        self._coming[held] = request
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                while chunk := await request.read():
                    parts.append(chunk)
                    self._add(held, len(chunk))
        except TimeoutError:
            held.let_go()
            raise HttpRefusal(408, "deadline_exceeded", "the body took too long to come") from None
        except BaseException:
            held.let_go()
            raise
        finally:
            self._coming.pop(held, None)
        held.data = b"".join(parts)
        return held

    def _add(self, newest: Held, size: int) -> None:
        if newest not in self._coming:
            raise _overtaken()
        newest.size += size
        self.bytes_held += size
        if newest.size > self._size_max:
            raise too_large(self._size_max)
        while self.bytes_held > self._bytes_max:
            oldest = next(iter(self._coming))
            if oldest is newest:
                raise busy("too much is on its way at once")
            # It hears of it at its next turn; until then its bytes are counted as gone.
            self._coming.pop(oldest).fail(_overtaken())
            oldest.let_go()


def too_large(size_max: int) -> HttpRefusal:
    return HttpRefusal(413, "resource_exhausted", f"the body is larger than {size_max} bytes")


def busy(message: str) -> HttpRefusal:
    return HttpRefusal(429, "resource_exhausted", message, _AGAIN)


def _overtaken() -> HttpRefusal:
    return busy("others came faster, and there is no room for all")
