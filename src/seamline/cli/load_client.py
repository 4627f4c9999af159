"""The HTTP/1.1 client of the load engine: few allocations, one connection for one shopper.

A request on a kept connection that the server closed before the first byte of an answer is sent once more
on a new connection if its method is safe (RFC 9112, 9.3.1), as browsers do; that is counted as resent. A
POST is never sent twice.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import quote, urlencode, urljoin, urlsplit

import httptools

from seamline.kernel.errors import SeamlineError

BODY_BYTES_MAX = 64 * 1024 * 1024
SAFE = frozenset({"GET", "HEAD"})


class ExchangeError(Exception):
    """No answer came: the connection was refused, cut or too slow."""


class StaleError(ExchangeError):
    """A kept connection was closed by the server before it answered anything."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the shoppers go."""

    scheme: str
    host: str
    port: int
    context: ssl.SSLContext | None

    @classmethod
    def parse(cls, url: str, *, trust_any: bool = False) -> Target:
        from seamline.cli.errors import ArgumentError

        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ArgumentError(f"{url!r} is not a URL ({error})", "Write http://host:port") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ArgumentError(f"{url!r} is not an http or https URL", "Write http://host:port")
        context = None
        if parts.scheme == "https":
            context = ssl.create_default_context()
            if trust_any:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        return cls(parts.scheme, parts.hostname, port or (443 if context else 80), context)

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.context else 80
        return host if self.port == usual else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(slots=True)
class Response:
    """What the server answered. Header names are in lower case; the last of equal ones wins."""

    status: int = 0
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    cookies: list[str] = field(default_factory=list[str])
    body: bytes = b""
    path: str = ""

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        return json.loads(self.body)


class Connection(asyncio.Protocol):
    """One connection, one exchange at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.reusable = False
        self.closed = False
        self._waiting: asyncio.Future[Response] | None = None
        self._used = False
        self._reset()

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._response = Response()
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._heard = False
        self._until_close = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    async def exchange(self, request: bytes) -> Response:
        """Send one request, wait for its whole answer."""
        assert self.transport is not None
        self._reset()
        self.reusable = False
        if self.closed:
            raise StaleError("the connection was closed")
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            return await self._waiting
        finally:
            self._waiting = None
            self._used = True

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ExchangeError(f"the answer is not HTTP ({error})"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.reusable = False
        if self._until_close and exc is None:
            self.on_message_complete()
        elif self._heard:
            self._fail(ExchangeError("the connection was cut in the middle of an answer"))
        elif self._used:
            self._fail(StaleError("the kept connection was closed before any answer"))
        else:
            said = f" ({exc})" if exc else ""
            self._fail(ExchangeError(f"the connection was closed before any answer{said}"))

    def close(self) -> None:
        self.closed = True
        self.reusable = False
        if self.transport is not None:
            self.transport.abort()

    def _fail(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)

    # What httptools calls while it parses.

    def on_status(self, reason: bytes) -> None:
        self._response.reason = reason.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key == "set-cookie":
            self._response.cookies.append(text)
        else:
            self._response.headers[key] = text

    def on_headers_complete(self) -> None:
        headers = self._response.headers
        self._response.status = self._parser.get_status_code()
        framed = "content-length" in headers or "chunked" in headers.get("transfer-encoding", "")
        self._until_close = not framed and self._response.status not in (204, 304)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > BODY_BYTES_MAX:
            self._fail(ExchangeError(f"the answer is larger than {BODY_BYTES_MAX} bytes"))
            self.close()
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._response.status < 200:  # 100 Continue, 103 Early Hints: the answer is still to come
            self._response = Response()
            return
        self._until_close = False
        self._response.body = b"".join(self._body)
        self.reusable = not self.closed and self._parser.should_keep_alive()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(self._response)


class Browser:
    """One shopper's client: a kept connection, cookies, no cache."""

    def __init__(self, target: Target, *, timeout_s: float = 30.0) -> None:
        self.target = target
        self.timeout_s = timeout_s
        self.cookies: dict[str, str] = {}
        self.resent = 0
        self.connections = 0
        self._connection: Connection | None = None
        self._fixed = f"Host: {target.authority}\r\nUser-Agent: seamline-load\r\nAccept: */*\r\n"

    async def send(self, method: str, path: str, form: dict[str, Any] | None = None) -> Response:
        """One exchange, without following redirects. Raises ``ExchangeError``."""
        request = self._request(method, path, form)
        try:
            async with asyncio.timeout(self.timeout_s):
                try:
                    response = await self._exchange(request)
                except StaleError:
                    if method not in SAFE:
                        raise
                    self.resent += 1
                    response = await self._exchange(request)
        except TimeoutError:
            self.close()
            raise ExchangeError(f"no answer within {self.timeout_s:g} s") from None
        except (OSError, ssl.SSLError) as error:
            self.close()
            raise ExchangeError(f"could not connect ({error.strerror or error})") from None
        response.path = path
        self._keep_cookies(response)
        return response

    def follow(self, response: Response) -> str | None:
        """The path that a redirect leads to; ``None`` if it is none or leads to another host."""
        location = response.headers.get("location")
        if response.status not in (301, 302, 303, 307, 308) or location is None:
            return None
        parts = urlsplit(urljoin(f"{self.target.url}{response.path}", location))
        if (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)) != (
            self.target.host,
            self.target.port,
        ):
            return None
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _exchange(self, request: bytes) -> Response:
        connection = self._connection
        if connection is None or connection.closed or not connection.reusable:
            self.close()
            self.connections += 1
            _, connection = await asyncio.get_running_loop().create_connection(
                Connection,
                self.target.host,
                self.target.port,
                ssl=self.target.context,
                server_hostname=self.target.host if self.target.context else None,
            )
            self._connection = connection
        try:
            return await connection.exchange(request)
        except ExchangeError:
            self.close()
            raise

    def _request(self, method: str, path: str, form: dict[str, Any] | None) -> bytes:
        if not path.startswith("/"):
            raise SeamlineError(f"{path!r} is not a path of {self.target.url}", "Begin it with '/'")
        lines = [f"{method} {quote(path, safe=SAFE_IN_PATH)} HTTP/1.1\r\n", self._fixed]
        if self.cookies:
            lines.append("Cookie: " + "; ".join(f"{k}={v}" for k, v in self.cookies.items()) + "\r\n")
        body = b""
        if form is not None:
            body = urlencode(form, doseq=True).encode()
            lines.append(f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n")
        elif method not in SAFE:
            lines.append("Content-Length: 0\r\n")
        return "".join(lines).encode("latin-1") + b"\r\n" + body

    def _keep_cookies(self, response: Response) -> None:
        for text in response.cookies:
            pair, _, attributes = text.partition(";")
            name, _, value = pair.strip().partition("=")
            if "max-age=0" in attributes.lower().replace(" ", "") or not value:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value


SAFE_IN_PATH = "/?&=:%@+,;!$'()*~#[]"
