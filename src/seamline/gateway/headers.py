"""What the gateway adds to and takes from headers. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seamline.kernel.wire.http1 import Header

_HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection",
    b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect",
})  # fmt: skip
_OURS = frozenset({
    b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port",
    b"x-forwarded-prefix", b"x-real-ip", b"x-request-id", b"seamline-subject",
})  # fmt: skip
_NOT_FOR_APPS = _HOP_BY_HOP | _OURS
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")

SECURITY: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
STRICT_TRANSPORT: Header = (b"strict-transport-security", b"max-age=31536000")


def request_id(sent: bytes | None, trace_id: int) -> bytes:
    """The client's own id if it is a plain token, else that of the request's trace."""
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent
    return b"%032x" % trace_id


def for_app(headers: Sequence[Header], identity: bytes, client: bytes, scheme: bytes, host: bytes) -> list[Header]:
    """A request's headers as an app gets them.

    What belongs to the hop, what only the gateway may say, and names with underscores (which WSGI
    cannot tell from hyphens) are left out; the gateway's own word on where the request comes from is added.
    """
    left_out = _NOT_FOR_APPS
    for name, value in headers:
        if name == b"connection":
            left_out = left_out.union(token.strip().lower() for token in value.split(b","))
    kept = [header for header in headers if header[0] not in left_out and b"_" not in header[0]]
    kept += (
        (b"x-request-id", identity),
        (b"x-forwarded-for", client),
        (b"x-forwarded-proto", scheme),
        (b"x-forwarded-host", host),
    )
    return kept


def from_app(headers: Iterable[Header]) -> list[Header]:
    """An app's answer headers, lower-case, without those of the hop."""
    lower = [(name.lower(), value) for name, value in headers]
    if _HOP_BY_HOP.isdisjoint([name for name, _ in lower]):
        return lower
    return [header for header in lower if header[0] not in _HOP_BY_HOP]


def with_defaults(headers: list[Header], defaults: Iterable[Header]) -> None:
    """Add those of ``defaults`` that ``headers`` does not name."""
    names = [name for name, _ in headers]
    headers += [header for header in defaults if header[0] not in names]


def vary(headers: list[Header], on: bytes) -> None:
    """Say that the answer depends on the request header ``on``."""
    for position, (name, value) in enumerate(headers):
        if name == b"vary":
            listed = [token.strip().lower() for token in value.split(b",")]
            if on not in listed and b"*" not in listed:
                headers[position] = (name, value + b", " + on)
            return
    headers.append((b"vary", on))


@dataclass(frozen=True, slots=True)
class Cors:
    """Which other origins' pages may read answers. ``*`` in ``origins`` means every origin."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...]
    credentials: bool
    age_max_s: int

    def allowed(self, origin: bytes) -> bytes | None:
        """The value for access-control-allow-origin, or None."""
        if "*" in self.origins:
            return origin if self.credentials else b"*"
        return origin if origin.decode("latin-1") in self.origins else None

    def answer(self, origin: bytes) -> list[Header]:
        """Headers for an answer to a page of ``origin``; empty when it may not read it."""
        allowed = self.allowed(origin)
        if allowed is None:
            return []
        found = [(b"access-control-allow-origin", allowed)]
        if self.credentials:
            found.append((b"access-control-allow-credentials", b"true"))
        return found

    def preflight(self, origin: bytes) -> list[Header]:
        """Headers for the answer to a browser that asks before it sends."""
        found = self.answer(origin)
        if found:
            found += [
                (b"access-control-allow-methods", ", ".join(self.methods).encode()),
                (b"access-control-allow-headers", ", ".join(self.headers).encode()),
                (b"access-control-max-age", b"%d" % self.age_max_s),
            ]
        found.append((b"vary", b"origin, access-control-request-method, access-control-request-headers"))
        return found
