"""Gzip for answers that gain by it, without holding a stream back."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from seamline.gateway.headers import vary
from seamline.kernel.wire.http1 import Header

LEVEL = 5  # 6 takes half as long again for one or two percent
_GZIP_WINDOW = 31
_TEXTUAL = (
    b"application/json", b"application/javascript", b"application/xml", b"application/manifest+json",
    b"application/wasm", b"image/svg+xml", b"application/x-ndjson", b"application/graphql",
)  # fmt: skip


def accepts_gzip(accept_encoding: bytes | None) -> bool:
    """Whether an ``accept-encoding`` header allows gzip: ``gzip;q=0`` does not, ``*`` does."""
    if not accept_encoding:
        return False
    star = False
    for item in accept_encoding.lower().split(b","):
        coding, _, parameters = item.partition(b";")
        refused = parameters.replace(b" ", b"").rstrip(b"0").rstrip(b".") in (b"q=", b"q=0")
        match coding.strip():
            case b"gzip" | b"x-gzip":
                return not refused
            case b"*":
                star = not refused
            case _:
                pass
    return star


def compressible(status: int, headers: Sequence[Header]) -> bool:
    """Whether an answer may be coded: plain text of some kind, whole, not yet coded, not an event stream."""
    if status < 200 or status in (204, 206, 304):
        return False
    kind = b""
    for name, value in headers:
        if name in (b"content-encoding", b"content-range"):
            return False
        if name == b"cache-control" and b"no-transform" in value.lower():
            return False
        if name == b"content-type":
            kind = value.partition(b";")[0].strip().lower()
    if kind == b"text/event-stream":
        return False
    return kind.startswith(b"text/") or kind.endswith((b"+json", b"+xml")) or kind in _TEXTUAL


class Gzip:
    """One answer's encoder."""

    __slots__ = ("_coder",)

    def __init__(self) -> None:
        self._coder = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP_WINDOW)

    def feed(self, data: bytes) -> bytes:
        return self._coder.compress(data)

    def flush(self) -> bytes:
        """What the client can decode up to here, so that a stream does not wait."""
        return self._coder.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._coder.flush()


def encoded(headers: list[Header]) -> list[Header]:
    """The headers of the same answer, coded."""
    found: list[Header] = []
    for name, value in headers:
        if name in {b"content-length", b"accept-ranges"}:
            continue
        if name == b"etag" and not value.startswith(b"W/"):
            value = b"W/" + value  # noqa: PLW2901  # the same representation no longer byte for byte
        found.append((name, value))
    found.append((b"content-encoding", b"gzip"))
    vary(found, b"accept-encoding")
    return found
