"""The admin socket from inside: one line of JSON asks, lines of JSON answer (see ``admin``)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from seamline.kernel.errors import SeamlineError
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings import SidecarSettings
from seamline.kernel.signal import log
from seamline.run.admin import RefusedError
from seamline.run.control import Address, AskRoom, AskStats, Inject, MoveClock, in_json
from seamline.run.drills import Drills
from seamline.run.errors import ControlError, NotAllowedError, RoleError, RunError, UnknownTargetError
from seamline.run.models.trials import ModelTrials
from seamline.run.revocations import checked
from seamline.run.roles import ROLES, Caller, looks_only, needed, suffices
from seamline.run.rooms import ask_room
from seamline.run.sockets import peer_of
from seamline.run.traffic import Snapshot, compare

if TYPE_CHECKING:
    from seamline.run.replica import Replica
    from seamline.run.supervisor import Supervisor

_log = log.get("seamline.run")
_REQUEST_BYTES_MAX = 1024 * 1024
_CONNECTIONS_MAX = 64
_ANSWER_S = 5.0
_ROOM_S = 60.0
_INCIDENT_ACTS = ("acknowledge", "note", "close")
_TOLD = (
    "topology", "replicas", "workload", "module", "operation", "incident", "fault", "method", "contract", "version",
    "yes",
)  # fmt: skip
"""Arguments that the audit has; others may hold what is secret."""


class Answer(Protocol):
    """The open end of one request."""

    def line(self, content: Mapping[str, Any]) -> None: ...
    def say(self, text: str) -> None: ...
    async def flush(self) -> None:
        """Wait until a slow reader has caught up."""
        ...


class _Lines:
    """Lines of JSON on the admin socket."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def line(self, content: Mapping[str, Any]) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps(content).encode() + b"\n")

    def say(self, text: str) -> None:
        self.line({"progress": text})

    async def flush(self) -> None:
        """Wait until a slow reader has caught up."""
        await self._writer.drain()


Operation = Callable[[dict[str, Any], Answer], Awaitable[dict[str, Any]]]


class AdminServer:
    """Answers what :class:`~seamline.run.admin.AdminClient` asks."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._owner = TaskOwner("admin socket")
        self._open: set[asyncio.Task[None]] = set()
        self._drills = Drills(supervisor)
        self._models = ModelTrials(supervisor)
        self._operations: dict[str, Operation] = {
            "status": self._status,
            "endpoints": self._endpoints,
            "top": self._top,
            "logs": self._logs,
            "switch": self._switch,
            "scale": self._scale,
            "restart": self._restart,
            "stop": self._stop,
            "inject": self._inject,
            "observed": self._observed,
            "policy": self._policy,
            "rotate": self._rotate,
            "revoke": self._revoke,
            "jwks": self._jwks,
            "identity": self._identity,
            "secrets": self._secrets,
            "audit-heads": self._audit_heads,
            "token": self._token,
            "sidecar": self._sidecar,
            "events": self._ask_room,
            "sagas": self._ask_room,
            "drill": self._drills.perform,
            "policies": self._ask_room,
            "describe": self._describe,
            "try": self._try,
            "model_stats": self._models.stats,
            "models": supervisor.rollouts.show,
            "model_promote": supervisor.rollouts.promote,
            "model_weights": supervisor.rollouts.weigh,
            "model_shadow": supervisor.rollouts.shadow,
            "model_rollback": supervisor.rollouts.roll_back,
            "model_evaluate": self._models.evaluate,
            "model_replay": self._models.replay,
            "model_try": self._models.perform_try,
            "incident": self._incident,
        }
        self._for_tests: dict[str, Operation] = {
            "external": self._external,
            "issue": self._issue,
            "clock": self._clock,
        }

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            if peer_of(connection).uid != os.getuid() or len(self._open) >= _CONNECTIONS_MAX:
                connection.close()
                continue
            connection.setblocking(False)
            task = self._owner.spawn(self._serve_one(connection), name="admin connection")
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def finish(self) -> None:
        """Let answers under way (that of ``stop`` among them) end, shortly."""
        if self._open:
            await asyncio.wait(self._open, timeout=1.0)
        await self._drills.stop()
        await self._owner.stop()

    async def _serve_one(self, connection: socket.socket) -> None:
        peer = peer_of(connection)
        caller = Caller(f"user {peer.uid}", "admin", f"pid {peer.pid}")
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_REQUEST_BYTES_MAX)
        answer = _Lines(writer)
        try:
            raw = await reader.readuntil(b"\n")
            answer.line({"done": True, "result": await self._run(raw, answer, caller)})
            await answer.flush()
        except SeamlineError as error:
            answer.line({"error": error.to_json()})
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            return  # the other end broke off, or never asked
        except Exception as error:  # whatever it is, who asked must hear of it
            _log.exception("an admin request failed")
            answer.line({"error": RunError(f"{type(error).__name__}: {error}").to_json()})
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _run(self, raw: bytes, answer: Answer, caller: Caller) -> dict[str, Any]:
        try:
            request = json.loads(raw)
            name = request.pop("op")
        except (ValueError, KeyError, AttributeError, TypeError):
            raise ControlError("a request is one line of JSON with an op", 'Such as {"op": "status"}.') from None
        claimed = request.pop("as", None)
        if claimed is not None:  # whoever reaches this socket may do all, so also less
            caller = _claimed(claimed)
            request |= {"who": caller.name, "by": caller.name}
        return await self.perform(name, {"who": caller.name, "by": caller.name, **request}, answer, caller)

    async def perform(self, name: str, request: dict[str, Any], answer: Answer, caller: Caller) -> dict[str, Any]:
        """Do it if the caller's role permits it; whatever changes something is written to the audit."""
        if not suffices(caller.role, needed(name, request)):
            wanted = needed(name, request)
            self._record("deny", name, request, caller, f"{wanted!r} is needed, and this is {caller.role!r}")
            raise RoleError(f"{name!r} needs the role {wanted!r}, and {caller.name} has {caller.role!r}")
        if looks_only(name, request):
            return await self._do(name, request, answer)
        try:
            result = await self._do(name, request, answer)
        except SeamlineError as error:
            self._record("fail", name, request, caller, str(error))
            raise
        self._record("allow", name, request, caller)
        return result

    def _record(self, decision: str, name: str, request: Mapping[str, Any], caller: Caller, reason: str = "") -> None:
        told = {key: request[key] for key in _TOLD if request.get(key) is not None}
        self._supervisor.registrar.audit.write(
            "admin", decision, principal=caller.name, action=name[:100], resource=self._supervisor.settings.app.name,
            reason=reason, peer=caller.peer, role=caller.role, always=True, **told,
        )  # fmt: skip

    async def _do(self, name: str, request: dict[str, Any], answer: Answer) -> dict[str, Any]:
        operation = self._operations.get(name)
        if operation is None and name in self._for_tests:
            if not self._supervisor.testing:
                raise NotAllowedError(f"{name!r} is for tests", "Start the supervisor with testing=True.")
            operation = self._for_tests[name]
        if operation is None:
            raise UnknownTargetError(
                f"there is no operation {name!r}", f"Known: {', '.join(sorted(self._operations))}."
            )
        try:
            if operation == self._ask_room:
                request["room"] = name
            return await operation(request, answer)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            _log.debug("a malformed request", exc_info=error)
            raise ControlError(f"the request {name!r} has a missing or wrong argument: {error}") from error

    # What everybody may ask.

    async def _status(self, _: dict[str, Any], __: Answer) -> dict[str, Any]:
        return self._supervisor.status()

    async def _endpoints(self, _: dict[str, Any], __: Answer) -> dict[str, Any]:
        return {"endpoints": in_json(self._supervisor.fleet.endpoints()), "url": self._supervisor.url}

    async def _top(self, request: dict[str, Any], answer: Answer) -> dict[str, Any]:
        """``top`` lines every ``interval_s`` with ``follow``; the result is the last."""
        interval_s = min(max(float(request.get("interval_s", 1.0)), 0.05), 60.0)
        before = await self._snapshot()
        while True:
            await asyncio.sleep(interval_s)
            after = await self._snapshot()
            top = {
                "topology": self._supervisor.topology,
                "edges": compare(before, after),
                "workloads": self._supervisor.status()["workloads"],
            }
            if not request.get("follow"):
                return top
            answer.line({"top": top})
            await answer.flush()
            before = after

    async def _snapshot(self) -> Snapshot:
        replicas = [each for each in self._supervisor.fleet.replicas if each.reachable]
        stats = await asyncio.gather(*(each.ask(AskStats, _ANSWER_S) for each in replicas), return_exceptions=True)
        found = {
            (each.pid, each.label): cast("dict[str, Any]", stat)
            for each, stat in zip(replicas, stats, strict=True)
            if isinstance(stat, dict)
        }
        return Snapshot(asyncio.get_running_loop().time(), found)

    async def _logs(self, request: dict[str, Any], answer: Answer) -> dict[str, Any]:
        """``log`` lines: the last ``lines``, of ``module`` (or workload) if named; with ``follow`` all that come."""
        book, name = self._supervisor.book, request.get("module")
        with book.follow() as queue:
            for line in book.last(name, int(request.get("lines", 50))):
                answer.line({"log": line})
            await answer.flush()
            while request.get("follow"):
                line = await queue.get()
                if name is None or name in {line.get("module"), line.get("workload")}:
                    answer.line({"log": line})
                    await answer.flush()
        return {}

    async def _switch(self, request: dict[str, Any], answer: Answer) -> dict[str, Any]:
        change = await self._supervisor.switch(str(request["topology"]), answer.say)
        return {"topology": self._supervisor.topology, **change.to_json()}

    async def _scale(self, request: dict[str, Any], answer: Answer) -> dict[str, Any]:
        counts = {str(name): int(number) for name, number in request["replicas"].items()}
        return (await self._supervisor.scale(counts, answer.say)).to_json()

    async def _restart(self, request: dict[str, Any], answer: Answer) -> dict[str, Any]:
        return (await self._supervisor.restart(request.get("workload"), answer.say)).to_json()

    async def _stop(self, _: dict[str, Any], answer: Answer) -> dict[str, Any]:
        answer.say("finishing what is in flight")
        self._supervisor.request_stop()
        assert self._supervisor.stopped is not None
        return {"drained": await asyncio.shield(self._supervisor.stopped)}

    async def _inject(self, request: dict[str, Any], _: Answer) -> dict[str, Any]:
        self._supervisor.fleet.rules = request["rules"]
        replicas = self._workers(request.get("workload"))
        await asyncio.gather(*(each.ask(Inject, _ANSWER_S, rules=request["rules"]) for each in replicas))
        return {"workers": len(replicas)}

    async def _policy(self, _: dict[str, Any], __: Answer) -> dict[str, Any]:
        await self._supervisor.reload_policy()
        return {}

    async def _observed(self, _: dict[str, Any], __: Answer) -> dict[str, Any]:
        """Who has called what since each process started, and where public requests went."""
        found = (await self._snapshot()).stats.values()
        return {"processes": [{"edges": each.get("edges", []), "public": each.get("public", [])} for each in found]}

    async def _incident(self, request: dict[str, Any], _: Answer) -> dict[str, Any]:
        """Somebody acts on an ``incident``, which the observer keeps: what is done here is to permit it, on record."""
        if request["operation"] not in _INCIDENT_ACTS:
            raise UnknownTargetError(
                f"{request['operation']!r} is nothing to do with an incident", f"Known: {', '.join(_INCIDENT_ACTS)}."
            )
        return {"incident": str(request["incident"])}

    async def _secrets(self, request: dict[str, Any], _: Answer) -> dict[str, Any]:
        """``operation`` with ``arguments`` on the secrets, by ``who``."""
        keeping = self._supervisor.registrar.keeping
        arguments = dict(request.get("arguments", {}))
        return {"result": await keeping.ask(str(request["operation"]), str(request["who"]), arguments)}

    async def _revoke(self, request: dict[str, Any], _: Answer) -> dict[str, Any]:
        """``entries`` of ``kind`` and ``id`` are no longer good, everywhere, from now on; or are again: ``lifted``."""
        entries = [checked(each, self._supervisor.settings.modules) for each in request["entries"]]
        return {"workers": await self._supervisor.registrar.revoke(entries, str(request.get("by", "admin")))}

    async def _sidecar(self, request: dict[str, Any], answer: Answer) -> dict[str, Any]:
        """Have the service at ``port`` of the loopback answer for ``module``; the module itself again at 0."""
        module, port = str(request["module"]), int(request["port"])
        sidecar = SidecarSettings(port=port) if port else None
        return (await self._supervisor.put_beside(module, sidecar, answer.say)).to_json()

    async def _audit_heads(self, _: dict[str, Any], __: Answer) -> dict[str, Any]:
        """How far each log of the audit has come, from memory."""
        found = self._supervisor.registrar.auditing.heads()
        return {"heads": [{"log": each.log, "lines": each.number, "head": each.head} for each in found]}

    async def _token(self, request: dict[str, Any], _: Answer) -> dict[str, Any]:
        """A one-time token for a session of ``role`` at the control API."""
        role = request.get("role", "admin")
        if role not in ROLES:
            raise UnknownTargetError(f"there is no role {role!r}", f"Known: {', '.join(ROLES)}.")
        api = self._supervisor.api
        if api is None:
            raise ControlError("the control API is not served", "Set listen under [admin].")
        return {"url": api.url, "role": role, "token": api.sessions.new_token(role)}

    async def _jwks(self, _: dict[str, Any], __: Answer) -> dict[str, Any]:
        """The modules' public keys as a JSON Web Key Set."""
        from seamline.mesh.identity.keyring import KnownKey  # heavy, as in the registrar

        await self._supervisor.registrar.authority()
        keys = [KnownKey(*each) for each in self._supervisor.registrar.keys.current()]
        return {"keys": [{**key.to_jwk(), "module": key.module} for key in keys]}

    async def _identity(self, _: dict[str, Any], __: Answer) -> dict[str, Any]:
        """Who has certificates until when, and what was revoked and is not over."""
        registrar = self._supervisor.registrar
        await registrar.authority()
        revoked = registrar.revocations.entries()
        modules: dict[str, dict[str, Any]] = {}
        for _kid, module, _point, _begins, ends in registrar.keys.current():
            entry = modules.setdefault(module, {"certificates": 0, "ends": 0})
            entry["certificates"] += 1
            entry["ends"] = max(entry["ends"], ends)
        return {
            "trust_domain": self._supervisor.settings.trust_domain,
            "modules": [
                {"name": name, **entry, "quarantined": registrar.revocations.set_apart(name) or ""}
                for name, entry in sorted(modules.items())
            ],
            "revocations": [each for each in revoked if each["kind"] != "module"],
        }

    async def _rotate(self, _: dict[str, Any], __: Answer) -> dict[str, Any]:
        """A new root: everyone trusts it before anyone is given a certificate that it signed."""
        authority = await self._supervisor.registrar.authority()
        authority.rotate_root()
        return {"workers": await self._supervisor.registrar.spread_bundle()}

    async def _ask_room(self, request: dict[str, Any], _: Answer) -> dict[str, Any]:
        """``operation`` with ``arguments`` on the events or sagas of ``module``, or of every module.

        ``answers`` has one entry for each workload that was asked: of those that host a module, one is enough.
        """
        module = request.get("module")
        if module is not None:
            self._known(module)
        asked: dict[str, Replica] = {}
        for replica in self._supervisor.fleet.serving:
            if replica.reachable and (module is None or module in replica.workload.modules):
                asked.setdefault(replica.workload.name, replica)
        if not asked:
            raise ControlError(f"nobody hosts {module!r} now" if module else "nothing runs", "See `seamline status`.")
        arguments = {"module": module, **request.get("arguments", {})}
        room, operation = str(request["room"]), str(request["operation"])
        answers = await asyncio.gather(
            *(
                each.ask(AskRoom, _ROOM_S, room=room, operation=operation, arguments=arguments)
                for each in asked.values()
            )
        )
        for found in answers:
            if "error" in found:
                raise RefusedError(found["error"])
        return {
            "answers": [
                {"workload": name, "modules": list(replica.workload.modules), "result": found["result"]}
                for (name, replica), found in zip(asked.items(), answers, strict=True)
            ]
        }

    async def _describe(self, request: dict[str, Any], _: Answer) -> dict[str, Any]:
        """What ``module`` offers and needs, as JSON."""
        return await self._ask_module("describe", {"module": str(request["module"])})

    async def _try(self, request: dict[str, Any], _: Answer) -> dict[str, Any]:
        """Call ``method`` of ``module`` with ``arguments``, once, as the principal ``portal``."""
        given = {name: request[name] for name in ("module", "method", "arguments")}
        return await self._ask_module("call", given)

    async def _ask_module(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """One of those who host a module."""
        module = self._known(arguments["module"])
        hosts = (each for each in self._supervisor.fleet.serving if each.reachable and module in each.workload.modules)
        replica = next(hosts, None)
        if replica is None:
            raise ControlError(f"nobody hosts {module!r} now", "See `seamline status`.")
        return await ask_room(replica, "modules", operation, arguments, _ROOM_S)

    def _known(self, module: str) -> str:
        """Raises UnknownTargetError."""
        if module not in self._supervisor.settings.modules:
            known = ", ".join(sorted(self._supervisor.settings.modules))
            raise UnknownTargetError(f"there is no module {module!r}", f"Known: {known}.")
        return module

    # What tests may ask.

    async def _external(self, request: dict[str, Any], answer: Answer) -> dict[str, Any]:
        """``endpoints``: module to ``host:port``."""
        found: dict[str, Address] = {}
        for module, where in request["endpoints"].items():
            host, _, port = str(where).rpartition(":")
            found[module] = Address(host, int(port), workload="external")
        return (await self._supervisor.replace_external(found, answer.say)).to_json()

    async def _issue(self, request: dict[str, Any], _: Answer) -> dict[str, Any]:
        """A certificate for any ``module`` on ``csr``, so that a test can take part in the mesh."""
        authority = await self._supervisor.registrar.authority()
        lifetime_s = float(request.get("lifetime_s", 600))
        module = str(request["module"])
        chains = self._supervisor.registrar.issue(authority, {module: str(request["csr"])}, lifetime_s)
        keys = self._supervisor.registrar.keys.current()
        return {"chain": chains[module], "bundle": authority.bundle_pem.decode(), "keys": keys}

    async def _clock(self, request: dict[str, Any], _: Answer) -> dict[str, Any]:
        """Move the clock of one ``workload``, or of all."""
        offset_s = float(request["offset_s"])
        workload = request.get("workload")
        if workload is None:
            self._supervisor.clock.offset_s = offset_s
        replicas = self._workers(workload)
        await asyncio.gather(*(each.ask(MoveClock, _ANSWER_S, offset_s=offset_s) for each in replicas))
        return {"workers": len(replicas)}

    def _workers(self, name: str | None) -> list[Replica]:
        wanted = None if name is None else self._supervisor.workload_of(name)
        return [
            each for each in self._supervisor.fleet.replicas if each.reachable and wanted in {None, each.workload.name}
        ]


def _claimed(claim: Any) -> Caller:
    """On whose behalf the portal asks. Raises ControlError."""
    try:
        name, role, peer = str(claim["name"]), claim["role"], str(claim.get("peer", ""))
    except (KeyError, TypeError, AttributeError):
        raise ControlError(
            "the claim of who asks is malformed", 'Such as {"name": "session 1", "role": "viewer"}.'
        ) from None
    if role not in ROLES:
        raise ControlError(f"there is no role {role!r}", f"Known: {', '.join(ROLES)}.")
    return Caller(name, role, peer)
