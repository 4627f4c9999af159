"""The portal on a loopback port as a browser meets it, with a made-up supervisor behind it.

The front plays the part of the control API: sessions, their cookie and the page's word, and what it tells the portal.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import unquote

from tests.portal.planted import STEP, TRACE, WORKLOADS, described

from seamline.gateway.asgi import AsgiExchange, make_scope
from seamline.kernel.lifetime import Runners
from seamline.kernel.settings.observe import SloSettings
from seamline.kernel.wire.http1 import Exchange, HttpLimits, HttpServer
from seamline.observe.detect.promises import Promises
from seamline.observe.live import Live
from seamline.observe.records import Batch
from seamline.observe.windows import Window
from seamline.portal.app import Portal, make_app
from seamline.portal.shell import ModulePart
from seamline.run.admin import RefusedError
from seamline.run.roles import Caller, Role, needed, suffices

COOKIE = "seamline-test"


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class FakeAdmin:
    """Answers as the supervisor of the planted shop would, checks roles, and remembers what was asked by whom."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.topology = "trio"
        self.answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
        """What an operation answers, by its name."""
        self.silent: set[str] = set()
        """Operations that are never answered."""

    async def ask(
        self, op: str, say: Callable[[str], None] | None = None, *, as_: Caller | None = None, **arguments: Any
    ) -> dict[str, Any]:
        assert as_ is not None, "the portal acts for somebody"
        if not suffices(as_.role, needed(op, arguments)):
            fact = f"{op!r} needs the role {needed(op, arguments)!r}, and {as_.name} has {as_.role!r}"
            raise RefusedError({"code": "SL5012", "fact": fact, "remedy": ""})
        if op != "status":
            self.asked.append((op, as_.name, arguments))
        if op in self.silent:
            await asyncio.Event().wait()
        if op in self.answers:
            return self.answers[op](arguments)
        match op:
            case "status":
                return self.status()
            case "switch":
                for text in ("starting 2 workloads", "moving the public socket", "draining what is replaced"):
                    if say:
                        say(text)
                self.topology = arguments["topology"]
                return {"topology": self.topology, "started": ["a"], "stopped": ["b"], "kept": []}
            case "describe":
                return described(arguments["module"])
            case "try":
                return {"result": '{"id": "o-1"}', "left_out": 0, "duration_ms": 12.5, "trace_id": TRACE.hex()}
            case "model_try":
                for text in ("Mugs ", "are <b>here</b>", "."):
                    if say:
                        say(json.dumps({"text": text, "usage": None}))
                return {"duration_ms": 20.5, "trace_id": TRACE.hex()}
            case _:
                return {}

    def status(self) -> dict[str, Any]:
        return {
            "app": "shop", "topology": self.topology, "generation": 3, "pid": 1, "url": "http://127.0.0.1:8000",
            "control_url": "", "data": "/data", "started_at": 1.0, "ready": True, "changing": False,
            "workloads": [
                {
                    "name": name, "modules": modules,
                    "replicas": [{
                        "replica": 0, "generation": 3, "pid": 4000 + i, "state": "ready", "gateway": not i,
                        "mesh": f"127.0.0.1:{7000 + i}", "restarts": 0, "ready_s": 0.4, "cpu_percent": 12.5,
                        "rss_mb": 60.2, "loop_lag_ms": 0.6, "crash_loop": None,
                    }],
                }
                for i, (name, modules) in enumerate(WORKLOADS.items())
            ],
        }  # fmt: skip


class FakeIncidents:
    """Remembers what people did about incidents; ``INC-7`` alone is open."""

    def __init__(self) -> None:
        self.done: list[tuple[str, ...]] = []

    def acknowledge(self, name: str, by: str) -> bool:
        return self._note("acknowledge", name, by)

    def note(self, name: str, by: str, text: str) -> bool:
        return self._note("note", name, by, text)

    def close(self, name: str, by: str) -> bool:
        return self._note("close", name, by)

    def _note(self, *what: str) -> bool:
        self.done.append(what)
        return what[1] == "INC-7"


class FakeObservatory:
    """What the planted shop told lately, and news that tests tell."""

    def __init__(self, batches: Iterable[Batch] = (), slos: Mapping[str, SloSettings] | None = None) -> None:
        self.live = Live()
        self.promises = Promises(slos or {})
        self.incidents = FakeIncidents()
        self.latest: list[Window] = []
        for batch in batches:
            self.add(batch)
        for window in self.latest:
            self.promises.feed(window)

    def add(self, batch: Batch) -> Window:
        """Batches of one moment make one window."""
        at_ns = batch.at_ns // STEP * STEP
        if not self.latest or self.latest[-1].at_ns != at_ns:
            self.latest.append(Window(at_ns, STEP))
        window = self.latest[-1]
        for traffic in batch.traffic:
            window.add_traffic(traffic)
        for profile in batch.profiles:
            window.add_profile(profile)
        for point in batch.points:
            window.add_point(point, batch.source.workload)
        window.marks += batch.marks
        return window


class Front:
    """Where the portal is served, and what stands behind it."""

    def __init__(self, portal: Portal, admin: FakeAdmin, *, parts: Sequence[ModulePart] | None = None) -> None:
        self.portal = portal
        self.admin = admin
        self.refuses = False
        """Whether the control API has forgotten every session, as after a restart."""
        self.url = ""
        self._app = make_app(portal, parts=parts)
        self._transports: set[asyncio.Transport] = set()
        self._tokens: dict[str, Role] = {}
        self._sessions: dict[str, tuple[str, Role, str]] = {}

    def show(self, portal: Portal) -> None:
        """Serve another portal from now on."""
        self.portal, self._app = portal, make_app(portal)

    def token(self, role: Role = "admin") -> str:
        """What `seamline admin token` prints."""
        value = secrets.token_urlsafe(16)
        self._tokens[value] = role
        return value

    def address(self, path: str = "/", role: Role = "admin") -> str:
        """Opens ``path`` signed in."""
        return f"{self.url}{path}#token={self.token(role)}"

    def headers(self, role: Role = "admin") -> dict[str, str]:
        """Those of a request that the control API has let through."""
        return {"hx-request": "true", "x-seamline-caller": "session 3", "x-seamline-role": role}

    async def send(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Reply:
        """A request as it stands, without a session."""

        def ask() -> Reply:
            connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=20)
            try:
                connection.request(method, path, body, {name.replace("_", "-"): each for name, each in headers.items()})
                answer = connection.getresponse()
                return Reply(answer.status, {name.lower(): each for name, each in answer.getheaders()}, answer.read())
            finally:
                connection.close()

        return await asyncio.to_thread(ask)

    async def visit(self, path: str, role: Role = "admin") -> Reply:
        """A page's content, as the browser asks for it after signing in."""
        token = json.dumps({"token": self.token(role), "cookie": True})
        signed_in = await self.send("/v1/session", "POST", token)
        page = json.loads(signed_in.body)["page"]
        cookie = signed_in.headers["set-cookie"].partition(";")[0]
        return await self.send(path, hx_request="true", x_seamline_page=page, cookie=cookie)

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[Front]:
        runners = Runners()
        server = HttpServer(self._answer, HttpLimits(body_bytes_max=1 << 21), runners=runners)
        listener = await asyncio.get_running_loop().create_server(server.protocol, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            listener.close()
            await server.close()
            await runners.stop()

    def cut(self) -> None:
        """Break every connection."""
        for each in self._transports:
            each.abort()
        self._transports.clear()

    async def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        self._transports.add(exchange.transport)
        path = unquote(request.path.decode("latin-1"))
        if path == "/v1/session":
            await self._session(exchange)
            return
        headers = [(name, value) for name, value in request.headers if not name.startswith(b"x-seamline")]
        if request.header(b"hx-request"):
            caller = self._caller(exchange)
            if caller is None:
                _respond(exchange, 401, {"error": {"code": "SL5011", "fact": "nobody is signed in", "remedy": ""}})
                return
            headers += [(b"x-seamline-caller", caller.name.encode()), (b"x-seamline-role", caller.role.encode())]
        scope = make_scope(exchange, "http", "http", path, "", headers)
        loop = asyncio.get_running_loop()
        answering = AsgiExchange(exchange, loop, lambda _status, given: given, None)
        await answering.run(self._app, scope)

    async def _session(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method == "DELETE":
            self._sessions.clear()
            _respond(exchange, 200, {})
            return
        role = self._tokens.pop(json.loads(await request.read_all()).get("token", ""), None)
        if role is None:
            fact = "the token is wrong, was used, or is too old"
            _respond(
                exchange,
                401,
                {"error": {"code": "SL5011", "fact": fact, "remedy": "`seamline admin token` makes one."}},
            )
            return
        bearer, page = secrets.token_urlsafe(8), secrets.token_urlsafe(8)
        self._sessions[bearer] = (f"session {len(self._sessions) + 1}", role, page)
        cookie = f"{COOKIE}={bearer}; Path=/; HttpOnly; SameSite=Strict"
        _respond(exchange, 200, {"session": 1, "role": role, "page": page}, [(b"set-cookie", cookie.encode())])

    def _caller(self, exchange: Exchange) -> Caller | None:
        cookies = (exchange.request.header(b"cookie") or b"").decode("latin-1")
        bearer = cookies.partition(f"{COOKIE}=")[2].partition(";")[0]
        name, role, page = self._sessions.get(bearer, ("", "viewer", ""))
        given = (exchange.request.header(b"x-seamline-page") or b"").decode("latin-1")
        return Caller(name, role, "test") if name and given == page and not self.refuses else None


def _respond(exchange: Exchange, status: int, content: Any, more: list[tuple[bytes, bytes]] | None = None) -> None:
    exchange.respond(status, [(b"content-type", b"application/json"), *(more or [])], json.dumps(content).encode())
