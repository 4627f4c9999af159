"""A question to one of the gateway's own pages, and its answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from seamline.kernel.wire.http1 import Header, HttpRequest

BODY_BYTES_MAX = 16_384
_FIELDS_MAX = 50
_PAGE_HEADERS: tuple[Header, ...] = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"same-origin"),
)
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action {targets}; base-uri 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class Question:
    """A request to one of our own pages. ``origin`` is ours, as the browser knows it."""

    method: str
    path: str
    query: dict[str, str]
    form: dict[str, str]
    origin: str
    address: str
    request: HttpRequest | None = None
    """None where we ask ourselves."""

    def header(self, name: bytes) -> bytes:
        return (self.request.header(name) or b"") if self.request is not None else b""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: list[Header] = field(default_factory=list[Header])
    body: bytes = b""


def fields(text: str) -> dict[str, str]:
    """A query or a form. Raises ValueError for a name that stands twice, or too many."""
    pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_FIELDS_MAX)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field stands twice")
    return found


def redirect(to: str, *headers: Header) -> Answer:
    return Answer(303, [(b"location", to.encode("ascii", "strict")), (b"cache-control", b"no-store"), *headers])


def page(status: int, text: str, *headers: Header, targets: str = "'self'") -> Answer:
    policy = (b"content-security-policy", _POLICY.format(targets=targets).encode())
    return Answer(status, [*_PAGE_HEADERS, policy, *headers], text.encode())


def as_json(status: int, value: Any, *headers: Header) -> Answer:
    kind = (b"content-type", b"application/json")
    return Answer(status, [kind, (b"cache-control", b"no-store"), *headers], json.dumps(value).encode())
