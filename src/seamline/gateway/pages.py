"""Error answers: HTML for browsers, JSON for everyone else, both with the request's id."""

from __future__ import annotations

import html
import http
import json
from typing import Final

from seamline.kernel.wire.http1 import Header

_CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    408: "request_timeout",
    413: "payload_too_large",
    421: "misdirected_request",
    429: "resource_exhausted",
    500: "internal",
    501: "unimplemented",
    502: "bad_gateway",
    503: "unavailable",
    504: "deadline_exceeded",
}

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{status} {phrase}</title>
<style>
  :root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }}
  body {{ max-width: 34rem; margin: 18vh auto 0; padding: 0 1.5rem }}
  h1 {{ font-size: 1.6rem; margin: 0 0 .5rem }}
  b {{ color: #c2410c }}
  code {{ font-size: .85rem; opacity: .7 }}
</style>
<h1><b>{status}</b> {phrase}</h1>
<p>{message}</p>
{leave}<p><code>request {request_id}</code></p>
</html>
"""


SIGN_OUT: Final = "/.seamline/sign-out"
_LEAVE = f'<p><a href="{SIGN_OUT}">Go on as somebody else</a></p>\n'


def error_page(
    status: int, message: str, request_id: str, accept: bytes, leave: bool = False
) -> tuple[list[Header], bytes]:
    """Headers and body of an error answer for a client that sent this ``accept`` header.

    ``leave``: show the way to sign out, where somebody else might be allowed what was refused.
    """
    if b"text/html" in accept:
        page = _PAGE.format(
            status=status,
            phrase=http.HTTPStatus(status).phrase,
            message=html.escape(message),
            leave=_LEAVE if leave else "",
            request_id=html.escape(request_id),
        )
        kind, body = b"text/html; charset=utf-8", page.encode()
    else:
        told = {"code": _CODES.get(status, "error"), "message": message, "request_id": request_id}
        kind, body = b"application/json", json.dumps(told).encode()
    return [(b"content-type", kind), (b"cache-control", b"no-store")], body
