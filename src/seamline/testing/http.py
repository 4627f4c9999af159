"""A small HTTP client for tests: the application's public side through its real socket, with cookies."""

from __future__ import annotations

import html
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from seamline.kernel.wire.http1_client import HttpPool, HttpResponse
from seamline.testing.errors import NotSignedInError, TestingError, TooSlowError
from seamline.testing.thread import LoopThread

_REDIRECTS = (301, 302, 303, 307, 308)
_REDIRECTS_MAX = 10
_NAVIGATES = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-site": "same-origin"}
_TICKET = re.compile(r'name="ticket" value="([^"]+)"')
_BODY_BYTES_MAX = 64 * 1024 * 1024


class Head:
    """Status and headers of an answer. ``headers`` holds them in order, names in lower case."""

    def __init__(self, response: HttpResponse) -> None:
        self.status = response.status
        self.headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers]

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key == name.lower()), None)


class Response(Head):
    """A whole answer."""

    def __init__(self, response: HttpResponse, body: bytes, path: str) -> None:
        super().__init__(response)
        self.body = body
        self.path = path
        """Where it came from, after redirects."""

    def __repr__(self) -> str:
        return f"<{self.status} of {self.path}, {len(self.body)} bytes>"

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    def json(self) -> Any:
        return json.loads(self.body)


class StreamedResponse(Head):
    """An answer whose body is read as it comes: ``async for chunk in response``."""

    def __init__(self, response: HttpResponse, thread: LoopThread) -> None:
        super().__init__(response)
        self._response = response
        self._thread = thread

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self._thread.cross(self._response.read()):
            yield chunk


class HttpClient:
    """Talks to the gateway as a browser does: it keeps cookies, and follows redirects when asked to.

    ``cookies`` can be read and written. Paths begin with ``/``. What changes something says where it comes from.
    """

    def __init__(self, thread: LoopThread, host: str, port: int, *, timeout_s: float = 30.0) -> None:
        self.base_url = f"http://{host}:{port}"
        self.cookies: dict[str, str] = {}
        self._thread = thread
        self._timeout_s = timeout_s
        self._pool = HttpPool(host, port)

    async def get(self, path: str, *, headers: Mapping[str, str] | None = None, follow: bool = False) -> Response:
        return await self.request("GET", path, headers=headers, follow=follow)

    async def post(
        self,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        follow: bool = False,
    ) -> Response:
        """Send a form, a JSON value or bytes."""
        return await self.request("POST", path, form=form, json=json, body=body, headers=headers, follow=follow)

    async def sign_in(self, name: str, password: str) -> None:
        """Sign in with the development identity provider, as a browser does. Raises NotSignedInError."""
        form = await self.get("/.seamline/sign-in", headers=_NAVIGATES, follow=True)
        ticket = _TICKET.search(form.body.decode("utf-8", "replace"))
        fields = {"ticket": html.unescape(ticket[1]) if ticket else "", "name": name, "password": password}
        sent = await self.post(form.path.partition("?")[0], form=fields, headers=_NAVIGATES)
        back = await self.get(_path_of(sent.header("location") or "/"), headers=_NAVIGATES) if ticket else sent
        if sent.status != 303 or back.status != 303:
            raise NotSignedInError(
                f"{name!r} was not signed in: the answer was {max(sent.status, back.status)}",
                "Has the application a development identity provider, and is the password right?",
            )

    async def sign_out(self) -> None:
        """End the session."""
        await self.post("/.seamline/sign-out", follow=True)

    async def request(
        self,
        method: str,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        follow: bool = False,
    ) -> Response:
        """One request, and with ``follow`` those it is sent on to. Raises TooSlowError or TestingError."""
        kind, content = _content(form, json, body)
        given = {**kind, **(headers or {})}
        for _ in range(_REDIRECTS_MAX):
            answer = await self._thread.cross(self._exchange(method, path, given, content))
            location = answer.header("location")
            if not follow or answer.status not in _REDIRECTS or location is None:
                return answer
            path = _path_of(urljoin(path, location))
            if answer.status < 307:
                method, content, given = "GET", b"", dict(headers or {})
        raise TestingError(f"{path!r} was still a redirect after {_REDIRECTS_MAX}", "Does it lead to itself?")

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """An answer as it comes; leaving the block closes it."""
        kind, content = _content(form, json, body)
        response = await self._thread.cross(self._send(method, path, {**kind, **(headers or {})}, content))
        try:
            yield StreamedResponse(response, self._thread)
        finally:
            await self._thread.cross(response.aclose())

    def close(self) -> None:
        self._thread.run(self._pool.close(), 5.0, "closing the HTTP client")

    async def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        response = await self._send(method, path, headers, body)
        return Response(response, await response.read_all(_BODY_BYTES_MAX), path)

    async def _send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> HttpResponse:
        lines = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        if method not in ("GET", "HEAD") and not any(name == b"origin" for name, _ in lines):
            lines.append((b"origin", self.base_url.encode("ascii")))
        if self.cookies:
            lines.append((b"cookie", "; ".join(f"{k}={v}" for k, v in self.cookies.items()).encode("latin-1")))
        replayable = method in ("GET", "HEAD")
        try:
            response = await self._pool.request(method, path, lines, body, self._timeout_s, replayable=replayable)
        except TimeoutError:
            raise TooSlowError(
                f"{method} {path} was not answered in {self._timeout_s:g} s", "See the captured log."
            ) from None
        self._keep_cookies(response)
        return response

    def _keep_cookies(self, response: HttpResponse) -> None:
        for name, value in response.headers:
            if name.lower() != b"set-cookie":
                continue
            for key, morsel in SimpleCookie(value.decode("latin-1")).items():
                if morsel["max-age"] == "0" or not morsel.value:
                    self.cookies.pop(key, None)
                else:
                    self.cookies[key] = morsel.coded_value


def _content(form: Mapping[str, str] | None, value: Any, body: bytes) -> tuple[dict[str, str], bytes]:
    if form is not None:
        return {"content-type": "application/x-www-form-urlencoded"}, urlencode(form).encode()
    if value is not None:
        return {"content-type": "application/json"}, json.dumps(value).encode()
    return {}, body


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
