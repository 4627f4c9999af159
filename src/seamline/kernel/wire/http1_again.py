"""Heads that come again and again.

A client with a kept-alive connection mostly sends the same head each time, but for the length of its body. Such a head
is compared, and not parsed: that takes a tenth of the time. What is not the very same bytes is for the parser.
"""

from __future__ import annotations

import re
from typing import Final, Self

from seamline.kernel.wire.http1_message import GATHER_BYTES, HttpRequest

_HEAD_MAX: Final = 4096
_DIGITS_MAX: Final = 8
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,8})(?=\r\n)", re.IGNORECASE)


class KnownHead:
    """The head of a request that the parser took."""

    __slots__ = ("_after", "_before", "_length_at", "_request")

    def __init__(self, request: HttpRequest, before: bytes, after: bytes) -> None:
        self._request = request
        self._before = before
        """All of it up to the digits of the length; all of it where none is told."""
        self._after = after
        self._length_at = -1
        """Which of the headers tells the length."""
        if after:
            self._length_at = [name for name, _ in request.headers].index(b"content-length")

    @classmethod
    def of(cls, request: HttpRequest, data: bytes) -> Self | None:
        """Of a whole request that came as ``data``; None where its head is none to be known by."""
        length = request.content_length
        if length is None or request.received != length:
            return None
        size = len(data) - length
        head = data[:size]
        # It ends where the parser, too, saw it end.
        if size > _HEAD_MAX or head.find(b"\r\n\r\n") != size - 4 or head.count(b"\n") != head.count(b"\r\n"):
            return None
        told = list(_LENGTH.finditer(head))
        kept = HttpRequest(
            request.method, request.target, list(request.headers), request.http_version, request.body_bytes_max
        )
        if not told and not length:
            return cls(kept, head, b"")
        if len(told) != 1 or int(told[0][1]) != length:
            return None
        return cls(kept, head[: told[0].start(1)], head[told[0].end(1) :])

    def read(self, data: bytes) -> HttpRequest | None:
        """The request that ``data`` is, if its head is this one and its body is there to the last byte."""
        before, after, known = self._before, self._after, self._request
        if not data.startswith(before):
            return None
        place = len(before)
        headers = known.headers.copy()
        length = 0
        if after:
            ends = data.find(b"\r", place, place + _DIGITS_MAX + 1)
            digits = data[place:ends]
            if ends < 0 or not digits.isdigit() or not data.startswith(after, ends):
                return None
            place, length = ends + len(after), int(digits)
            headers[self._length_at] = (b"content-length", digits)
        if len(data) - place != length or length > GATHER_BYTES or length > known.body_bytes_max:
            return None
        request = HttpRequest(known.method, known.target, headers, known.http_version, known.body_bytes_max)
        request.content_length = request.received = length
        if length:
            request.feed(data[place:])
        request.finish()
        return request
