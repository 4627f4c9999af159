"""A gateway whose door is locked, a browser before it, and an app behind it that tells whom it was told of."""

from __future__ import annotations

import contextlib
import html
import json
import re
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

from seamline.gateway.asgi import Receive, Scope, Send
from seamline.gateway.auth.door import Door
from seamline.gateway.auth.outbound import Fetch, fetch
from seamline.gateway.auth.records import Records
from seamline.gateway.gateway import Gateway
from seamline.gateway.routes import Route
from seamline.kernel.clock import ManualClock
from seamline.kernel.settings import AuthSettings, GatewaySettings
from seamline.kernel.store import Database, sqlite_url
from seamline.kernel.wire.http1_client import HttpPool
from seamline.mesh.identity.revocation import Revocations
from seamline.module.errors import PermissionDenied, Unauthenticated
from seamline.module.principal import User

ADA = (
    '[users.ada]\npassword = "scrypt$32768$8$1$bmFDbC1mb3ItdGVzdHM=$tRKxYCY928sCJpsTXr4cjRhrq/cI1nsByKLG95CXkj4="\n'
    'name = "Ada Example"\nemail = "ada@example.com"\nroles = ["support"]\n'
)


class Reply:
    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name), "")

    def every(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class Browser:
    """Keeps cookies as a browser does, and says as browsers do where a request comes from."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.origin = f"http://{host}:{port}"
        self.cookies: dict[str, str] = {}
        self._pools: dict[str, HttpPool] = {}
        self.seen: list[str] = []

    async def ask(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        cookies: bool = True,
    ) -> Reply:
        url = urljoin(self.origin, url)
        parts = urlsplit(url)
        pool = self._pools.get(parts.netloc)
        if pool is None:
            pool = self._pools[parts.netloc] = HttpPool("127.0.0.1", parts.port or 80, host_header=parts.netloc)
        lines = [(name.encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
        body = b""
        if form is not None:
            lines.append((b"content-type", b"application/x-www-form-urlencoded"))
            body = urlencode(form).encode()
        if cookies and self.cookies:
            lines.append((b"cookie", "; ".join(f"{k}={v}" for k, v in self.cookies.items()).encode()))
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        response = await pool.request(method, target, lines, body, 20.0)
        content = await response.read_all()
        found = [(name.decode().lower(), value.decode("latin-1")) for name, value in response.headers]
        for name, value in found:
            if name == "set-cookie" and cookies:
                self._keep(value)
        return Reply(response.status, found, content)

    def _keep(self, line: str) -> None:
        pair, *attributes = [part.strip() for part in line.split(";")]
        name, _, value = pair.partition("=")
        if name.startswith("__Host-"):  # what browsers demand of the prefix
            assert {"Secure", "Path=/"} <= set(attributes)
            assert not any(each.lower().startswith("domain") for each in attributes)
        if "Max-Age=0" in attributes or not value:
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value

    async def open(self, url: str, **headers: str) -> Reply:
        """Open a page and follow where it leads."""
        told = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-site": "none", **headers}
        for _ in range(10):
            url = urljoin(self.origin, url)
            self.seen.append(url)
            reply = await self.ask("GET", url, headers=told)
            if reply.status not in (302, 303):
                return reply
            url = urljoin(url, reply.header("location"))
        raise AssertionError(f"no end of redirects: {self.seen}")

    async def send(self, url: str, form: Mapping[str, str], **headers: str) -> Reply:
        """Send a form of the page that is open, and follow."""
        told = {"accept": "text/html", "sec-fetch-site": "same-origin", "origin": self.origin, **headers}
        reply = await self.ask("POST", url, form=form, headers=told)
        return (
            await self.open(urljoin(urljoin(self.origin, url), reply.header("location")))
            if reply.status == 303
            else reply
        )

    async def sign_in(self, name: str = "ada", password: str = "lovelace", at: str = "/.seamline/sign-in") -> Reply:
        """The whole way through our own provider's form."""
        form = await self.open(at)
        return await self.send(
            "/.seamline/id/authorize", {"ticket": ticket_of(form), "name": name, "password": password}
        )

    async def who(self, **headers: str) -> Any:
        reply = await self.ask("GET", "/who", headers=headers)
        assert reply.status == 200, reply.text
        return reply.json()

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.close()


def ticket_of(form: Reply) -> str:
    found = re.search(r'name="ticket" value="([^"]+)"', form.text)
    assert found, form.text
    return html.unescape(found[1])


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


async def teller(scope: Scope, receive: Receive, send: Send) -> None:
    """/who tells the user; /members asks for one; /desk wants the role support; /set tries to plant a cookie."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        return
    user: User | None = scope["seamline.user"]
    path: str = scope["path"]
    headers = [(b"content-type", b"application/json")]
    if path == "/members" and user is None:
        raise Unauthenticated("a user is needed")
    if path == "/desk":
        if user is None:
            raise Unauthenticated("a user is needed")
        if "support" not in user.roles:
            raise PermissionDenied("not for you")
    if path == "/set":
        headers += [(b"set-cookie", b"__Host-session=planted; Path=/; Secure"), (b"set-cookie", b"own=1")]
        headers += [(b"Set-Cookie", b" __Host-session =planted; Path=/; Secure"), (b"set-cookie", b"__Host-signin-x=1")]
    if path == "/public":
        headers += [(b"cache-control", b"public, max-age=60")]
    told: dict[str, Any] = {"user": None, "headers": [name.decode() for name, _ in scope["headers"]]}
    told["cookie"] = next((value.decode() for name, value in scope["headers"] if name == b"cookie"), "")
    if user is not None:
        told["user"] = {
            "id": user.id, "issuer": user.issuer, "roles": sorted(user.roles), "name": user.name, "email": user.email,
            "tenant": user.tenant, "session": user.session, "client": user.client,
            "scopes": sorted(user.scopes) if user.scopes is not None else None,
        }  # fmt: skip
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


class Lines(list[dict[str, Any]]):
    """The audit of a test."""

    def record(self, decision: str, **line: Any) -> None:
        self.append({"decision": decision, **line})

    def reasons(self) -> list[str]:
        return [line["reason"] for line in self]


class Place:
    """A running gateway with a door, and what a test needs of it."""

    def __init__(self, gateway: Gateway, door: Door, port: int, clock: ManualClock, audit: Lines, folder: Path) -> None:
        self.gateway = gateway
        self.door = door
        self.port = port
        self.clock = clock
        self.audit = audit
        self.folder = folder
        self.browsers: list[Browser] = []

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def now(self) -> int:
        return int(self.clock.now().timestamp())

    def browser(self, host: str = "127.0.0.1") -> Browser:
        browser = Browser(self.port, host)
        self.browsers.append(browser)
        return browser


Settings = Mapping[str, Any]


@asynccontextmanager
async def place(
    tmp_path: Path,
    *,
    ask: Fetch = fetch,
    clock: ManualClock | None = None,
    data: str = "data",
    gateway: Settings | None = None,
    refuses: Callable[[User], str | None] | None = None,
    revocations: Revocations | None = None,
    tls_client_ca: str = "",
    **auth: Any,
) -> AsyncGenerator[Place]:
    """A gateway in front of :func:`teller`, with these settings of ``[auth]``."""
    clock = clock or ManualClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    audit = Lines()
    if not (tmp_path / "users.toml").exists():
        (tmp_path / "users.toml").write_text(ADA, encoding="utf-8")
    folder = tmp_path / data
    records = Records(Database(sqlite_url(folder, "gateway"), "gateway"), clock)
    door = Door(
        AuthSettings(**auth), app="shop", folder=tmp_path, identity=folder / "identity", records=records, clock=clock,
        audit=audit.record, refuses=refuses, revocations=revocations, fetch=ask,
    )  # fmt: skip
    gate = Gateway(
        GatewaySettings(**(gateway or {})), [Route(module="shop")], lambda _: teller, clock=clock, door=door,
        client_ca=tls_client_ca,
    )  # fmt: skip
    sock = socket.create_server(("127.0.0.1", 0))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(gate.stop)
        await gate.serve(sock)
        found = Place(gate, door, sock.getsockname()[1], clock, audit, folder)
        try:
            yield found
        finally:
            for browser in found.browsers:
                await browser.close()
