"""Requests to an identity provider: short, bounded, without redirects, over TLS except on this machine."""

from __future__ import annotations

import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

from seamline.gateway.auth.errors import ProviderError
from seamline.kernel.settings.auth import loopback
from seamline.kernel.wire.http1_client import HttpPool

_TIMEOUT_S = 5.0
_BODY_BYTES_MAX = 512 * 1024

Fetch = Callable[[str, str, Mapping[str, str], bytes], Awaitable[tuple[int, bytes]]]
"""Method, url, headers and body to status and body. Raises OSError (TimeoutError, HttpClientError)."""


async def fetch(method: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
    """The :data:`Fetch` over the network."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    if not secure and not (parts.scheme == "http" and loopback(host)):
        raise ProviderError(f"{url!r} is not https", "An identity provider is reached over TLS.")
    port = parts.port or (443 if secure else 80)
    pool = HttpPool(host, port, _trust() if secure else None, connections_max=1, host_header=parts.netloc)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
        response = await pool.request(method, target, lines, body, _TIMEOUT_S)
        return response.status, await response.read_all(_BODY_BYTES_MAX)
    finally:
        await pool.close()


async def get_json(fetch: Fetch, url: str) -> dict[str, Any]:
    """A JSON object. Raises ProviderError."""
    return _object(url, *await _asked(fetch, "GET", url, {"accept": "application/json"}, b""))


async def post_form(
    fetch: Fetch, url: str, fields: Mapping[str, str], headers: Mapping[str, str]
) -> tuple[int, dict[str, Any]]:
    """Send a form; status and JSON object, also of an error. Raises ProviderError when there is no such answer."""
    given = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded", **headers}
    status, body = await _asked(fetch, "POST", url, given, urlencode(fields).encode())
    return status, _object(url, 200 if 400 <= status < 500 else status, body)


async def _asked(fetch: Fetch, method: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
    try:
        return await fetch(method, url, headers, body)
    except (OSError, ValueError) as error:
        raise ProviderError(f"{url} cannot be reached ({error or type(error).__name__})", "Is it up?") from error


def _object(url: str, status: int, body: bytes) -> dict[str, Any]:
    try:
        found: object = json.loads(body) if status == 200 else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ProviderError(f"{url} answered {status}, and not with a JSON object", "Is this the provider's address?")
    return cast("dict[str, Any]", found)


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()
