"""What Envoy asks before it lets anything pass: is this call permitted, on whose behalf, and until when?

Envoy sends the head and the body of the call itself (``ext_authz`` over HTTP), with the peer's SPIFFE ID as its
handshake has proven it. The answer is that of any other module's mesh port: the same policy with the same view of the
arguments, the same proof of the user, the same errors and audit lines.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from seamline.deploy.sidecar.envoy import CALLER, INWARD, OUTWARD, ROLES, SUBJECT, TIMEOUT, USER
from seamline.kernel.lifetime import Runners
from seamline.kernel.signal.trace import TraceContext
from seamline.kernel.wire.http1 import Exchange, Header, HttpLimits, HttpRequest, HttpServer
from seamline.mesh.doors import Doors
from seamline.mesh.edge import Edge
from seamline.mesh.errors import NotSpiffeError
from seamline.mesh.http_wire import HttpFace, answer_error, message_in_query
from seamline.mesh.identity import SpiffeId
from seamline.mesh.limits import PRIORITIES
from seamline.mesh.policy.rules import Elsewhere
from seamline.module.context import CallContext
from seamline.module.contract import BIDI, CLIENT_STREAM, UNARY, MethodSpec
from seamline.module.errors import CallError, InvalidArgument, Unauthenticated, Unimplemented
from seamline.run.sockets import listen_unix

if TYPE_CHECKING:
    import asyncio

    from seamline.mesh.mesh import Mesh
    from seamline.module.principal import Subject

_URI = re.compile(rb"(?:^|;)URI=([^;,\"]+)")
_OTHER_STATUS = {"unimplemented": 404, "unavailable": 429, "internal": 424, "deadline_exceeded": 408}
_SUBJECTS_MAX = 4096
_PRIORITY_NAMES = {number: name for name, number in PRIORITIES.items()}


class Check:
    """Answers Envoy for one module.

    Args:
        mesh: of this process; it knows all contracts, and provides those of the module in name.
        module: the one that the service answers for.
        outward: the methods of others, by ``Contract/method``.
    """

    def __init__(self, mesh: Mesh, module: str, outward: dict[str, tuple[str, MethodSpec]]) -> None:
        self._mesh = mesh
        self._module = module
        self._face = HttpFace(mesh)
        self._edges = {name: Edge(mesh, module, callee, spec) for name, (callee, spec) in outward.items()}
        self._subjects: dict[str, Subject] = {}
        self._runners = Runners()
        size = mesh.settings.frame_bytes_max
        self._bytes_max = size
        self._http = HttpServer(self._handle, HttpLimits(body_bytes_max=size), runners=self._runners)
        self._server: asyncio.Server | None = None

    async def listen(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._server = await loop.create_unix_server(self._http.protocol, sock=listen_unix(path))

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._http.close()
        await self._runners.stop()
        await self._face.stop()

    def subject_of(self, proof: str) -> Subject | None:
        """On whose behalf a call is made that has passed with that proof."""
        return self._subjects.get(proof)

    async def _handle(self, exchange: Exchange) -> None:
        request = exchange.request
        side, path = request.path[: len(INWARD)], request.path[len(INWARD) :]
        try:
            if side == INWARD.encode():
                headers = await self._inward(request, path)
            elif request.path.startswith(OUTWARD.encode()):
                headers = await self._outward(request, request.path[len(OUTWARD) :])
            else:
                raise Unimplemented(f"there is nothing at {request.path!r}", "Only Envoy asks here.")
        except CallError as error:
            # What begins with 5 would be taken for a failure of this check, and its words be lost.
            answer_error(exchange, error, _OTHER_STATUS.get(error.connect))
            return
        exchange.respond(200, headers)

    async def _inward(self, request: HttpRequest, path: bytes) -> list[Header]:
        caller = self._caller(request)
        door, context = self._face.admitted(request, path, Doors(self._mesh, caller))
        entry = door.entry
        if entry.spec.kind in (CLIENT_STREAM, BIDI):
            decision = self._mesh.decision(caller, entry.module, entry.spec)
            if decision is not True:  # the arguments are in a stream that Envoy does not wait for
                raise self._mesh.denied(caller, entry.module, entry.spec.permission, context.subject)
        else:
            data = await self._message(request, entry.spec)
            decision = self._mesh.decision(caller, entry.module, entry.spec)
            if decision is not True:
                _refuse_doubled(data)
            arguments = self._face.judged(door, context, data)
            if isinstance(decision, Elsewhere):
                await self._mesh.consult(decision, context.subject, arguments)
        return self._told(context, caller, self._kept(request, context.subject))

    async def _outward(self, request: HttpRequest, path: bytes) -> list[Header]:
        edge = self._edges.get(path.removeprefix(f"/{self._mesh.app}.".encode()).decode("latin-1"))
        if edge is None:
            raise Unimplemented(f"there is nothing at {path!r}", "Contracts of other modules are here.")
        arguments = edge.spec.decode_request(await self._message(request, edge.spec))
        context = edge.begin(arguments, self._at_work(request, edge))
        decision = self._mesh.decision(self._module, edge.callee, edge.spec)
        if isinstance(decision, Elsewhere):
            await self._mesh.consult(decision, context.subject, arguments)
        return self._told(context, self._module, edge.proof(context) or "")

    async def _message(self, request: HttpRequest, spec: MethodSpec) -> bytes:
        """The arguments as JSON, from the body, its first envelope, or the query: the one place where the service may
        look for them. Raises InvalidArgument."""
        if request.method == "GET" and spec.kind == UNARY:
            return message_in_query(spec, request.query)
        streams = (request.header(b"content-type") or b"").startswith(b"application/connect+json")
        if request.method != "POST" or request.query or streams != (spec.kind != UNARY):
            raise InvalidArgument(
                f"{spec.full_name} was called with {request.method}, a query or another content type",
                "POST application/json, or application/connect+json where something streams.",
            )
        body = request.body
        data = body if body is not None else await request.read_all(self._bytes_max)
        return data if spec.kind == UNARY else data[5:]

    def _caller(self, request: HttpRequest) -> str:
        """The module whose certificate Envoy has verified: it writes this header itself, and takes it from nobody."""
        found = _URI.findall(request.header(b"x-forwarded-client-cert") or b"")
        try:
            peer = SpiffeId.parse(found[0].decode("latin-1")) if len(found) == 1 else None
        except NotSpiffeError:
            peer = None
        identity = self._mesh.identity
        if peer is None or identity is None or (peer.trust_domain, peer.app) != (identity.trust_domain, identity.app):
            raise Unauthenticated("the peer is no module of this application", "Call with a module's certificate.")
        return peer.module

    def _kept(self, request: HttpRequest, subject: Subject | None) -> str:
        """What the service hands on when it calls others in the course of this call."""
        if subject is None:
            return ""
        text = (request.header(SUBJECT.encode()) or b"").decode("latin-1")
        self._subjects.pop(text, None)
        if len(self._subjects) >= _SUBJECTS_MAX:
            del self._subjects[next(iter(self._subjects))]
        self._subjects[text] = subject
        return text

    def _at_work(self, request: HttpRequest, edge: Edge) -> CallContext:
        """The call in whose course the service makes another."""
        header, text = request.header(b"traceparent"), request.header(SUBJECT.encode())
        subject = None
        if text:
            subject = self._subjects.get(text.decode("latin-1"))
            if subject is None:
                raise Unauthenticated(
                    f"the service hands on a {SUBJECT!r} that it was not given", "Copy that of the call under way."
                )
        given = request.header(b"connect-timeout-ms") or b""
        left_s = int(given) / 1000 if given.isdigit() and len(given) <= 10 else edge.timeout_s
        trace = TraceContext.from_traceparent(header.decode("latin-1")) if header else self._mesh.tracer.root()
        name = (request.header(b"seamline-priority") or b"").decode("latin-1")
        return CallContext(
            self._module, self._module, deadline=monotonic() + left_s, trace=trace,
            priority=PRIORITIES.get(name, edge.priority), subject=subject,
        )  # fmt: skip

    def _told(self, context: CallContext, caller: str, subject: str) -> list[Header]:
        """What is added to the call. Every name is said, also with nothing, so that nobody else's word stands there."""
        left_ms = max(int((context.deadline - monotonic()) * 1000), 1)
        user = context.subject.user if context.subject is not None else None
        roles = msgspec.json.encode(sorted(user.roles)) if user is not None else b""
        told = [
            (CALLER.encode(), caller.encode()),
            (USER.encode(), urllib.parse.quote(user.id).encode() if user is not None else b""),
            (ROLES.encode(), roles),
            (SUBJECT.encode(), subject.encode()),
            (TIMEOUT.encode(), b"%d" % left_ms),
            (b"connect-timeout-ms", b"%d" % left_ms),
            (b"seamline-priority", _PRIORITY_NAMES[context.priority].encode()),
        ]
        if context.origin is not None:
            trace = context.origin if context.origin.span_id else context.origin.child()
            told.append((b"traceparent", trace.to_traceparent().encode()))
        return told


def _refuse_doubled(data: bytes) -> None:
    """Members that differ by nothing, or by case alone, may be read otherwise by the service than by policy.

    Raises InvalidArgument.
    """

    def members(pairs: list[tuple[str, Any]]) -> None:
        if len({name.lower() for name, _ in pairs}) != len(pairs):
            raise InvalidArgument("the arguments name a member twice", "Name each once.")

    try:
        json.loads(data or b"{}", object_pairs_hook=members)
    except ValueError as error:
        raise InvalidArgument(f"the arguments are not JSON: {error}", "Send an object of the parameters.") from None
