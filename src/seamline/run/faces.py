"""Modules' public HTTP faces: mounted apps under an identity, here or through a tunnel."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from seamline.gateway.told import LEFT, ROUTE, SWITCHED, TRACE, asked, request_span, trace_of
from seamline.mesh.policy.rules import Elsewhere
from seamline.mesh.policy.world import HTTP
from seamline.module.context import CURRENT, CallContext
from seamline.module.contract import Contract
from seamline.module.errors import PermissionDenied, Unauthenticated
from seamline.module.module import Module, Mount
from seamline.module.port import MOUNTED
from seamline.run.placement import GATEWAY

if TYPE_CHECKING:
    from seamline.kernel.settings import GatewaySettings
    from seamline.kernel.signal.trace import TraceContext
    from seamline.mesh.connection import ClientDuplex
    from seamline.mesh.mesh import Mesh
    from seamline.mesh.server import ServerDuplex
    from seamline.module.principal import Subject, User

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


_log = logging.getLogger("seamline.run")

USER = "seamline.user"
"""In an ASGI scope: the user whom the gateway has authenticated, or None."""
CALLER = "seamline.caller"
"""Key of the scope: the module at the other end of a tunnel."""
SUBJECT = "seamline.subject"
"""In the scope of a request that came through a tunnel: on whose behalf it is made."""


class PublicRoute(NamedTuple):
    """A path of the public side, and the module whose face is there."""

    module: str
    path: str
    host: str = ""


class Faces:
    """The faces of the modules in this process, and ways to those elsewhere.

    Args:
        permitted: told of each request that policy has let in: caller, module, subject, trace, method and path.
    """

    def __init__(
        self,
        mesh: Mesh,
        stub: Callable[[type[Contract], str], Any],
        permitted: Callable[..., None] = lambda *_: None,
    ) -> None:
        self._mesh = mesh
        self._stub = stub
        self._permitted = permitted
        self._apps: dict[str, AsgiApp] = {}
        self._lifespans: dict[str, list[Lifespan]] = {}
        self._remote: dict[str, AsgiApp] = {}

    async def start(self, module: Module) -> None:
        """Run the lifespan of a module's apps and make its face."""
        if not module.mounts:
            return
        apps: list[tuple[Mount, AsgiApp]] = []
        self._lifespans[module.name] = []
        for mount in module.mounts:
            app = _as_asgi(mount)
            lifespan = Lifespan(app, module.name)
            await lifespan.start()
            self._lifespans[module.name].append(lifespan)
            apps.append((mount, _with_state(app, lifespan.state)))
        self._apps[module.name] = self._face(module, apps)

    async def stop(self, module: Module) -> None:
        for lifespan in self._lifespans.pop(module.name, []):
            await lifespan.stop()

    def _face(self, module: Module, apps: list[tuple[Mount, AsgiApp]]) -> AsgiApp:
        """Choose the module's app by path, and run it under the module's identity."""
        name = module.name
        by_length = sorted(apps, key=lambda pair: len(pair[0].at), reverse=True)
        tracer = self._mesh.tracer

        def stubs(contract: type[Contract]) -> Any:
            return self._stub(contract, name)

        mesh = self._mesh

        async def face(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            caller: str = scope.pop(CALLER, GATEWAY)
            subject = self._subject(scope)
            await self._judge(caller, name, scope, subject)
            mount, app = _app_for(by_length, scope)
            trace: TraceContext = scope.pop(TRACE, None) or tracer.enter(trace_of(scope.get("headers", ())))
            self._permitted(caller, name, subject, trace, _of_request(scope))
            context = CallContext(name, caller, HTTP, trace=trace, subject=subject, span=0)
            answer = Answer(scope, send, mount.at)
            failure: BaseException | None = None
            call, mounted = CURRENT.set(context), MOUNTED.set(stubs)
            started = monotonic()
            try:
                with mesh.revocations.bound(subject):
                    await app(scope, receive, answer.send)
            except BaseException as error:
                failure = error
                raise
            finally:
                MOUNTED.reset(mounted)
                CURRENT.reset(call)
                request_span(
                    tracer, trace, (context.span_id(), trace.span_id), (name, caller), asked(scope, mount.at),
                    answer.outcome(failure), started, failure, subject.user if subject is not None else None,
                )  # fmt: skip

        return face

    async def _judge(self, caller: str, module: str, scope: MutableMapping[str, Any], subject: Subject | None) -> None:
        """Ask policy about a request. Raises PermissionDenied or Unauthenticated."""
        decision = self._mesh.may(caller, module, "", HTTP)
        more = _of_request(scope)
        if decision is not True and (decision is False or not decision(subject, None, more)):
            raise self._mesh.denied(caller, module, ("", HTTP), subject, None, more)
        if isinstance(decision, Elsewhere):
            await self._mesh.consult(decision, subject, None, more)
        self._mesh.public[caller, module] += 1

    def _subject(self, scope: MutableMapping[str, Any]) -> Subject | None:
        """On whose behalf a request is made, as the gateway said: here, or through a tunnel."""
        subject: Subject | None = scope.pop(SUBJECT, None)
        if subject is None:
            user: User | None = scope.setdefault(USER, None)
            return self._mesh.introduce(user) if user is not None else None
        scope[USER] = subject.user
        return subject

    def app(self, module: str) -> AsgiApp:
        """The face of a module, wherever it runs."""
        local = self._apps.get(module)
        if local is not None:
            return local
        remote = self._remote.get(module)
        if remote is None:
            from seamline.gateway.tunnel import TunnelApp

            tunnel = self._mesh.tunnel(GATEWAY, module)

            async def open_stream(scope: MutableMapping[str, Any]) -> ClientDuplex:
                subject = self._subject(scope)
                await self._judge(GATEWAY, module, scope, subject)
                return await tunnel.open(subject, scope.get(TRACE))

            way = TunnelApp(open_stream)

            async def bounded(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
                subject = self._subject(scope)
                if subject is not None:
                    scope[SUBJECT] = subject
                # Here too: the module's process may hang, or hear of it late.
                with self._mesh.revocations.bound(subject):
                    await way(scope, receive, send)

            remote = self._remote[module] = bounded
        return remote

    def tunnels(self) -> dict[str, Callable[[ServerDuplex], Any]]:
        """What serves the faces hosted here to a gateway elsewhere."""
        from seamline.gateway.tunnel import serve_tunnel

        def serve(app: AsgiApp) -> Callable[[ServerDuplex], Any]:
            return lambda duplex: serve_tunnel(
                duplex, app, {SUBJECT: duplex.subject, CALLER: duplex.caller, TRACE: duplex.trace}
            )

        return {name: serve(app) for name, app in self._apps.items()}

    def routes(self, settings: GatewaySettings, mounts: Iterable[PublicRoute]) -> list[Any]:
        """The gateway's routes: the modules' mounts, and what ``[gateway] routes`` says over them."""
        from seamline.gateway.routes import Route

        table = {(m.host, m.path): Route(module=m.module, path=m.path, host=m.host) for m in mounts}
        for r in settings.routes:
            table[r.host, r.path] = Route(
                module=r.module, path=r.path, host=r.host, timeout_s=r.timeout_s, body_bytes_max=r.body_bytes_max
            )
        return list(table.values())


class Answer:
    """Sees how an app answers, on behalf of who tells of it."""

    __slots__ = ("_mount", "_scope", "_send", "status")

    def __init__(self, scope: MutableMapping[str, Any], send: Send, mount: str) -> None:
        self._scope = scope
        self._send = send
        self._mount = mount
        self.status = 0

    def send(self, message: Message) -> Awaitable[None]:
        if not self.status:
            self.status = message.get("status", SWITCHED if message["type"] == "websocket.accept" else 0)
            self._scope[ROUTE] = asked(self._scope, self._mount).route  # known by now, and wanted at the other end
        return self._send(message)

    def outcome(self, failure: BaseException | None) -> int:
        """The status, or what comes of there being none."""
        if isinstance(failure, Exception):
            return max(self.status, 500) if not isinstance(failure, (PermissionDenied, Unauthenticated)) else 403
        return self.status or LEFT


def _app_for(apps: list[tuple[Mount, AsgiApp]], scope: MutableMapping[str, Any]) -> tuple[Mount, AsgiApp]:
    path: str = scope.get("path", "/")
    for mount, app in apps:
        if mount.at in ("/", path) or path.startswith(f"{mount.at}/"):
            return mount, app
    return apps[-1]


def _of_request(scope: MutableMapping[str, Any]) -> dict[str, Any]:
    """What policy reads of a request."""
    return {"method": scope.get("method", "GET"), "path": scope.get("path", "/")}


def _as_asgi(mount: Mount) -> AsgiApp:
    if not mount.wsgi:
        return mount.app
    from seamline.gateway.wsgi import wsgi_app

    return wsgi_app(mount.app)


def _with_state(app: AsgiApp, state: dict[str, Any]) -> AsgiApp:
    """The app, each of whose requests gets a copy of what its lifespan left (ASGI's ``state``)."""
    if not state:
        return app

    async def stateful(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        scope["state"] = dict(state)
        await app(scope, receive, send)

    return stateful


class Lifespan:
    """Runs an app's ASGI lifespan; an app that has none is left in peace."""

    def __init__(self, app: AsgiApp, module: str) -> None:
        self._app = app
        self._module = module
        self.state: dict[str, Any] = {}
        """What the app's lifespan leaves for its requests."""
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._supported = False

    async def start(self) -> None:
        """Raises RuntimeError when the app says that its start failed."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"lifespan of {self._module}")
        await self._events.put({"type": "lifespan.startup"})
        answer = await self._answers.get()
        if answer is None:
            return
        if answer["type"] == "lifespan.startup.failed":
            message = f"the app of module {self._module!r} failed to start: {answer.get('message', '')}"
            raise RuntimeError(message)
        self._supported = True

    async def stop(self) -> None:
        if self._task is None:
            return
        if self._supported:
            await self._events.put({"type": "lifespan.shutdown"})
            answer = await self._answers.get()
            if answer is not None and answer["type"] == "lifespan.shutdown.failed":
                _log.error("the app of module %r failed to shut down: %s", self._module, answer.get("message", ""))
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        scope: dict[str, Any] = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._events.get, self._answers.put)
        except Exception as error:
            if self._supported:
                _log.exception("the lifespan of module %r failed", self._module)
            else:
                _log.debug("the app of module %r has no lifespan: %r", self._module, error)
        finally:
            await self._answers.put(None)
