"""Server-sent events, by the WHATWG's rules: https://html.spec.whatwg.org/multipage/server-sent-events.html

``id`` and ``retry`` are passed over: nobody here connects again to go on reading.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from seamline.models.errors import EngineMalformed

EVENT_BYTES_MAX: Final = 4 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"


class Event(NamedTuple):
    type: str
    data: bytes
    """UTF-8, if whoever sent it kept to the rules."""


class SseParser:
    """Takes bytes as they come, split anywhere, and gives events as they end.

    Args:
        event_bytes_max: of one event; EngineMalformed beyond it.
    """

    __slots__ = ("_after_cr", "_begun", "_buffer", "_bytes_max")

    def __init__(self, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._bytes_max = event_bytes_max
        self._buffer = bytearray()  # what has come of an event that has not ended; lines end with LF
        self._after_cr = False
        self._begun = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that end in ``chunk``."""
        if self._after_cr or b"\r" in chunk:
            chunk = self._with_lf(chunk)
        buffer = self._buffer
        if buffer or not self._begun:
            blocks = self._joined(chunk)
        else:
            blocks = chunk.split(b"\n\n")
            buffer += blocks.pop()
        if len(buffer) > self._bytes_max:
            self._refuse()
        events: list[Event] = []
        for block in blocks:
            if len(block) > self._bytes_max:
                self._refuse()
            if block[:6] == b"data: " and b"\n" not in block:
                events.append(Event("message", block[6:]))
            elif block:
                event = _event(block)
                if event is not None:
                    events.append(event)
        return events

    def _joined(self, chunk: bytes) -> list[bytes]:
        """The whole blocks in what was kept and ``chunk``; the rest is kept."""
        buffer = self._buffer
        seen = max(len(buffer) - 1, 0)
        buffer += chunk
        if not self._begun:
            if len(buffer) < len(_BOM) and _BOM.startswith(buffer):
                return []
            self._begun = True
            if buffer.startswith(_BOM):
                del buffer[: len(_BOM)]
                seen = 0
        end = buffer.rfind(b"\n\n", seen)
        if end < 0:
            return []
        blocks = bytes(buffer[:end]).split(b"\n\n")
        del buffer[: end + 2]
        return blocks

    def _with_lf(self, chunk: bytes) -> bytes:
        """The same with LF at the end of each line; a LF after a CR that was the last byte before is no line."""
        if not chunk:
            return chunk
        if self._after_cr and chunk[0] == 0x0A:
            chunk = chunk[1:]
            if not chunk:
                self._after_cr = False
                return chunk
        self._after_cr = chunk[-1] == 0x0D
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _refuse(self) -> None:
        raise EngineMalformed(
            f"an event is larger than {self._bytes_max} bytes", "An engine sends a few bytes at a time."
        )


def _event(block: bytes) -> Event | None:
    kind = ""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            kind = value.decode("utf-8", "replace")
    return Event(kind or "message", b"\n".join(data)) if data else None


def encoded(data: bytes, kind: str = "") -> bytes:
    """One event as it travels. ``data`` holds no line break."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data) if kind else b"data: %b\n\n" % data
