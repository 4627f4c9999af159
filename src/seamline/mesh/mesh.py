"""The mesh of one process: gives stubs, serves what is hosted here, finds what is not."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, cast

from seamline.kernel.clock import Clock
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings import MeshRules, MeshSettings
from seamline.kernel.signal.trace import Tracer
from seamline.mesh.balance import Endpoint, Replica, Replicas
from seamline.mesh.channel import Channel, FrameChannel
from seamline.mesh.edge import Edge
from seamline.mesh.errors import DelegationError, UnknownKeyError
from seamline.mesh.http_wire import HttpFace
from seamline.mesh.identity.delegation import Delegation
from seamline.mesh.identity.revocation import Revocations
from seamline.mesh.local import call_local, stream_local
from seamline.mesh.outcome import crossing
from seamline.mesh.policy.rules import Elsewhere
from seamline.mesh.policy.world import EVENTS, GATEWAY, call_name
from seamline.mesh.server import MeshPort
from seamline.mesh.service import Entry, ServiceTable, Wrap
from seamline.mesh.stub import stub_class
from seamline.mesh.tunnel import TunnelClient
from seamline.mesh.waiting import Waiting
from seamline.module.context import CallContext
from seamline.module.contract import Contract, ContractSpec, MethodSpec, compile_contract
from seamline.module.errors import (
    InternalError,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    UnknownContractError,
    Unreachable,
)
from seamline.module.values import Fault

if TYPE_CHECKING:
    from seamline.kernel.audit import AuditLog
    from seamline.mesh.connection import ClientConnection
    from seamline.mesh.identity import WorkloadIdentity
    from seamline.mesh.identity.keyring import Signers
    from seamline.mesh.policy import Condition, Policy
    from seamline.mesh.server import Tunnel
    from seamline.module.principal import Subject, User

C = TypeVar("C", bound=Contract)

CRASH_STATUS = 70
"""Exit status of a process that an injected crash ended."""

MIRRORED_MAX = 256
"""Mirrored calls under way at once; more are left out and counted as failed."""


def _crash_perhaps(rules: MeshRules) -> None:
    if random.random() * 100 < rules.inject_error_percent:
        os._exit(CRASH_STATUS)


class Mesh:
    """Implements the call port for all modules hosted in this process.

    Args:
        app: the application's name; the first part of a contract's name on the JSON wire.
        policy: who may call what.
        settings: ``[mesh]`` of seamline.toml.
        identity: the certificates of the modules hosted here, or None when nothing leaves the process.
        audit: where refusals are written, or None.
        tracer: decides what is sampled and keeps spans.
        copies: pass copies between modules in this process (``isolation = "copy"``).
        signers: the keys of the modules where there are no certificates.
        clock: what proofs and revocations begin and end by.
    """

    def __init__(
        self,
        app: str,
        policy: Policy,
        settings: MeshSettings,
        *,
        identity: WorkloadIdentity | None = None,
        audit: AuditLog | None = None,
        tracer: Tracer | None = None,
        copies: bool = False,
        signers: Signers | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.app = app
        self.policy = policy
        self.settings = settings
        self.identity = identity
        self.audit = audit
        self.tracer = tracer or Tracer()
        self.copies = copies
        self.services = ServiceTable()
        self.around: Callable[[Entry], Callable[..., Any]] | None = None
        """Puts something around what was provided, and is asked again with each :meth:`refresh`."""
        self.tunnels: dict[str, Tunnel] = {}
        self.owner = TaskOwner("mesh")
        self.mirror_failures = 0
        self._mirrored = 0
        self._contracts: dict[str, tuple[ContractSpec, str]] = {}
        self._edges: dict[tuple[str, str], list[Edge]] = {}
        self._stubs: dict[tuple[str, str], Any] = {}
        self._replicas: dict[str, Replicas] = {}
        self._channels: dict[tuple[str, str, Endpoint], Channel] = {}
        self._overrides: dict[str, dict[str, Any]] = {}
        self._placed = asyncio.Event()
        """Set, and replaced, when it is said anew where modules run."""
        self.revocations = Revocations(clock)
        self.delegation = Delegation(identity or signers, GATEWAY, clock, self._may_read_events)
        self.public: Counter[tuple[str, str]] = Counter()
        """Public requests that policy let in, by who passed them on and to which module."""
        self.waiting = Waiting(self.delegation, self.revocations)
        self._face = HttpFace(self)
        self.port = MeshPort(self, self._face.protocol)
        self.generation = 0
        """Grows with each :meth:`refresh`: what was looked up before may not hold any more."""
        self.revocations.on_quarantine.append(self._set_apart)
        if identity is not None:
            identity.refuses = self.revocations.refuses_module

    # What exists, and where.

    def know(self, contract: type[Contract], module: str) -> None:
        """Tell which module provides a contract, wherever it runs."""
        spec = compile_contract(contract)
        self._contracts[spec.name] = (spec, module)

    def provide(self, module: str, contract: type[Contract], service: object, *, wrap: Wrap | None = None) -> None:
        """Serve a contract in this process. ``wrap`` puts something around the handler of each method."""
        self.know(contract, module)
        self.services.add(module, compile_contract(contract), service, self.rules_of, wrap)
        self.refresh()

    def withdraw(self, module: str) -> None:
        """Serve a module's contracts no more; calls go to its endpoints."""
        self.services.remove(module)
        self.refresh()

    def set_endpoints(self, table: Mapping[str, Iterable[Endpoint]]) -> None:
        """Take the whole table of where modules run. Connections to endpoints that left are drained."""
        for module, endpoints in table.items():
            self._replicas.setdefault(module, Replicas()).replace(endpoints)
        for module in self._replicas.keys() - table.keys():
            self._replicas[module].replace(())
        for key in [k for k in self._channels if k[2] not in self._replicas.get(k[1], ())]:
            channel = self._channels.pop(key)
            self.owner.spawn(channel.close(60.0), name=f"drain {key[1]} at {key[2].address}")
        self._placed.set()
        self._placed = asyncio.Event()

    def unplaced(self, caller: str) -> set[str]:
        """The modules that ``caller`` has stubs of, and of which no workload is known now."""
        hosted = {entry.module for entry in self.services.entries.values()} | {caller}
        called = {self._contracts[contract][1] for by, contract in self._stubs if by == caller}
        return {module for module in called - hosted if not self._replicas.get(module)}

    async def reachable(self, caller: str) -> None:
        """Return when a workload is known of each module that ``caller`` has a stub of."""
        while self.unplaced(caller):
            await self._placed.wait()

    def override(self, rules: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the rules given while running, by method (``Payments.charge``) or contract (``Payments``)."""
        self._overrides = {name: dict(changes) for name, changes in rules.items()}
        for entry in self.services.entries.values():
            entry.set_rules(self.rules_of(entry.spec))
        self.refresh()

    def refresh(self) -> None:
        """Let everyone look up again what they depend on: policy, placement, rules."""
        self.generation += 1
        if self.around is not None:
            for entry in self.services.entries.values():
                entry.handler = self.around(entry)
        for edges in self._edges.values():
            for edge in edges:
                edge.refresh()

    def rules_of(self, spec: MethodSpec) -> MeshRules:
        declared: dict[str, Any] = {} if spec.timeout_s is None else {"timeout_s": spec.timeout_s}
        rules = self.settings.rules(spec.contract, spec.name, **declared)
        changes = {**self._overrides.get(spec.contract, {}), **self._overrides.get(spec.full_name, {})}
        return dataclasses.replace(rules, **changes) if changes else rules

    def faults_of(self, contract: str) -> dict[str, type[Fault]]:
        return self._contracts[contract][0].faults

    # The call port.

    def stub(self, contract: type[C], caller: str) -> C:
        """A stub of ``contract`` whose calls are made as the module ``caller``. Raises UnknownContractError."""
        found = self._contracts.get(contract.__name__)
        if found is None or found[0].cls is not contract:
            raise UnknownContractError(
                f"no module provides {contract.__name__!r}", "Add the module that does to `modules` in seamline.toml."
            )
        key = (caller, contract.__name__)
        if key not in self._stubs:
            spec, callee = found
            edges = [Edge(self, caller, callee, method) for method in spec.methods.values()]
            self._edges[key] = edges
            self._stubs[key] = stub_class(spec, callee)(edges)
        return cast("C", self._stubs[key])

    # For edges.

    def pick(self, callee: str, rules: MeshRules, tried: list[Replica]) -> Replica:
        """The replica for the next attempt. Raises Unreachable when there is none."""
        replicas = self._replicas.get(callee)
        replica = replicas.pick(monotonic(), rules.canary, tried[-1] if tried else None) if replicas else None
        if replica is None:
            raise Unreachable(
                f"no workload that hosts module {callee!r} is known", "Is it running? `seamline status` tells."
            )
        return replica

    def named_replica(self, callee: str, version_or_workload: str) -> Replica | None:
        replicas = self._replicas.get(callee)
        return replicas.named(version_or_workload) if replicas else None

    def mirror(self, edge: Edge, body: bytes, context: CallContext) -> None:
        """Send a copy of a call to the shadow; nobody waits for it. A shadow that does not keep up gets fewer."""
        replica = self.named_replica(edge.callee, edge.rules.mirror_to)
        if replica is None:
            return
        if self._mirrored >= MIRRORED_MAX:
            self.mirror_failures += 1
            return
        self._mirrored += 1
        self.owner.spawn(self._send_mirror(edge, replica, body, context), name=f"mirror {edge.name}")

    async def _send_mirror(self, edge: Edge, replica: Replica, body: bytes, context: CallContext) -> None:
        try:
            channel = await self.channel(edge.caller, edge.callee, replica, context.deadline)
            await channel.unary(edge, body, context, None)
        except Exception:
            self.mirror_failures += 1
        finally:
            self._mirrored -= 1

    def may_eject(self, callee: str, now: float, rules: MeshRules) -> bool:
        replicas = self._replicas.get(callee)
        return replicas is not None and replicas.may_eject(now, rules)

    async def channel(self, caller: str, callee: str, replica: Replica, deadline: float) -> Channel:
        """The connected channel of a module to a replica. Raises what connecting ends in."""
        endpoint = replica.endpoint
        key = (caller, callee, endpoint)
        channel = self._channels.get(key)
        if channel is None:
            if self.identity is None:
                raise InternalError(
                    f"module {callee!r} is not hosted here, and this process has no identity to call it with",
                    "Host it too, or start the application with `seamline up`.",
                )
            channel = self._channels[key] = self._channel_class(endpoint)(
                self.identity, self.settings, self.app, caller, callee, endpoint
            )
        if isinstance(channel, FrameChannel):
            channel.on_load = replica.told
        await channel.ready(deadline)
        replica.channels[caller] = channel  # where the next call finds it without waiting
        return channel

    def connections(self) -> list[tuple[str, str, ClientConnection]]:
        """The connections that are open now, by who calls whom; none where frames are not spoken."""
        return [
            (caller, callee, channel.connection)
            for (caller, callee, _), channel in self._channels.items()
            if isinstance(channel, FrameChannel) and channel.connection is not None
        ]

    def _channel_class(self, endpoint: Endpoint) -> Callable[..., Channel]:
        if (endpoint.wire or self.settings.wire) == "frames":
            return FrameChannel
        from seamline.mesh.http_channel import HttpChannel  # only where a layer-7 mesh must read the traffic

        return HttpChannel

    def serve(self, entry: Entry, arguments: tuple[Any, ...], context: CallContext) -> Coroutine[Any, Any, Any]:
        """Run a handler for a call that was let in, whichever way it came."""
        if self.policy.point is not None:
            return self._serve_consulted(entry, arguments, context)
        return self._serve(entry, arguments, context)

    def _serve(self, entry: Entry, arguments: tuple[Any, ...], context: CallContext) -> Coroutine[Any, Any, Any]:
        if entry.rules.inject_error == "crash":
            _crash_perhaps(entry.rules)
        return call_local(entry, arguments, context)

    async def _serve_consulted(self, entry: Entry, arguments: tuple[Any, ...], context: CallContext) -> Any:
        await self._consulted(entry, arguments, context)
        return await self._serve(entry, arguments, context)

    async def _consulted(self, entry: Entry, arguments: tuple[Any, ...], context: CallContext) -> None:
        decision = self.decision(context.caller, entry.module, entry.spec)
        if isinstance(decision, Elsewhere):
            await self.consult(decision, context.subject, arguments)

    async def serve_stream(self, entry: Entry, arguments: tuple[Any, ...], context: CallContext) -> AsyncGenerator[Any]:
        """Run a streaming handler for a call that was let in, whichever way it came."""
        if self.policy.point is not None:
            await self._consulted(entry, arguments, context)
        if entry.rules.inject_error == "crash":
            _crash_perhaps(entry.rules)
        async with aclosing(stream_local(entry, arguments, context)) as items:
            async for item in items:
                yield item

    def crossed(self, error: BaseException, entry: Entry) -> Exception:
        return crossing(error, entry.name, entry.module, entry.faults)

    def unknown_method(self, method: str) -> Unimplemented:
        known = self._contracts.get(method.partition(".")[0])
        if known is None:
            return Unimplemented(f"there is no method {method!r} here", "Does the caller use an older contract?")
        return Unimplemented(
            f"{method!r} is not served here", f"Its contract belongs to module {known[1]!r}; is the topology changing?"
        )

    def decision(self, caller: str, callee: str, spec: MethodSpec) -> bool | Condition:
        """Whether policy lets ``caller`` call the method, or on which condition.

        What a module has of the platform is open to itself.
        """
        if spec.action and caller == callee and not self.revocations.modules:
            return True
        return self.may(caller, callee, *spec.permission)

    def may(self, caller: str, callee: str, contract: str, method: str) -> bool | Condition:
        """As :meth:`decision`, of anything that policy names. Quarantine comes before policy."""
        if self.revocations.modules and self._quarantined(caller, callee):
            return False
        return self.policy.decision(caller, callee, contract, method)

    def _set_apart(self) -> None:
        """End what goes on with modules that are quarantined now, from either side."""
        self.refresh()
        self.port.set_apart()
        for key in [k for k in self._channels if self._quarantined(k[0], k[1])]:
            self.owner.spawn(self._channels.pop(key).close(0.0), name=f"cut off {key[1]}")

    def _quarantined(self, *modules: str) -> str:
        """What stands against a call between the modules; empty when nothing does."""
        reasons = ((name, self.revocations.refuses_module(name)) for name in modules)
        return next((f"module {name!r} is quarantined: {reason}" for name, reason in reasons if reason), "")

    async def consult(
        self,
        decision: Elsewhere,
        subject: Subject | None,
        arguments: tuple[Any, ...] | None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """Ask another decision point about a call. Raises PermissionDenied or Unauthenticated."""
        answer = await self.policy.consult(decision, subject, arguments, more)
        if answer.allow:
            return
        caller, callee, contract, method = decision.key
        fact = f"{caller!r} may not ask {call_name(contract, method)!r} of module {callee!r}"
        if answer.reason:
            fact = f"{fact}: {answer.reason}"
        self._audit_denial(caller, callee, (contract, method), subject, fact)
        missing = answer.sign_in and (subject is None or subject.user is None)
        raise (Unauthenticated if missing else PermissionDenied)(fact, "[policy] decision_point decides it.")

    def denied(
        self,
        caller: str,
        callee: str,
        permission: tuple[str, str],
        subject: Subject | None = None,
        arguments: tuple[Any, ...] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> PermissionDenied | Unauthenticated | Unavailable:
        """The error for a call that policy does not permit; it is audited.

        Unauthenticated says that nobody is signed in, and that somebody might have been let in; Unavailable, that the
        callee is quarantined.
        """
        quarantine = self._quarantined(caller, callee)
        if quarantine:
            self._audit_denial(caller, callee, permission, subject, quarantine)
            remedy = "Whoever operates the application has set it apart; `seamline identity release` takes it back."
            if self.revocations.refuses_module(caller) is not None:
                return PermissionDenied(quarantine, remedy)
            unavailable = Unavailable(quarantine, remedy)
            unavailable.started = False
            return unavailable
        request = (caller, callee, *permission, subject, arguments, more)
        fact, remedy = self.policy.denial_text(*request)
        self._audit_denial(caller, callee, permission, subject, fact)
        missing = self.policy.wants_user(*request)
        return (Unauthenticated if missing else PermissionDenied)(fact, remedy)

    def _audit_denial(
        self, caller: str, callee: str, permission: tuple[str, str], subject: Subject | None, fact: str
    ) -> None:
        if self.audit is not None:
            user = subject.user if subject is not None else None
            who: dict[str, Any] = {"user": user.id, "issuer": user.issuer} if user is not None else {}
            self.audit.write(
                "call", "deny", principal=caller, action=call_name(*permission), resource=callee, reason=fact,
                **who,
            )  # fmt: skip

    def audit_refusal(self, principal: str, reason: str) -> None:
        if self.audit is not None:
            self.audit.write(
                "identity", "refuse", principal=principal, action="connect", resource=self.app, reason=reason
            )

    def tunnel(self, caller: str, module: str) -> TunnelClient:
        """A way for the gateway to reach a module's public HTTP face in another process."""
        return TunnelClient(self, caller, module)

    # On whose behalf.

    def introduce(self, user: User | None, agent: str = "") -> Subject:
        """The subject of a request that the gateway has authenticated. Raises Unauthenticated when it is revoked."""
        subject = self.delegation.introduce(user, agent)
        self.revocations.check(subject)
        return subject

    def admit(self, proof: str, caller: str, module: str) -> Subject:
        """The subject that a call of ``caller`` to ``module`` proves. Raises Unauthenticated or Unavailable."""
        try:
            subject = self.delegation.accept(proof, caller, module)
        except UnknownKeyError as error:
            self.audit_refusal(caller, f"{error.code}: {error.fact}")
            refusal = Unavailable(error.fact, error.remedy)
            refusal.started = False
            raise refusal from None
        except DelegationError as error:
            self.audit_refusal(caller, f"{error.code}: {error.fact}")
            raise Unauthenticated(error.fact, error.remedy) from None
        self.revocations.check(subject)
        return subject

    def _may_read_events(self, module: str, publisher: str) -> bool:
        return self.policy.allows(module, publisher, "", EVENTS)

    # Statistics and the end.

    def stats(self) -> dict[str, Any]:
        """Calls by edge since the start, and what is under way."""
        edges = [
            {
                "caller": e.caller,
                "callee": e.callee,
                "method": e.name,
                "action": call_name(*e.spec.permission),
                **e.stats.snapshot(),
            }
            for edges in self._edges.values()
            for e in edges
            if e.stats.calls or e.stats.inflight
        ]
        return {
            "edges": edges,
            "public": [
                {"caller": caller, "callee": callee, "calls": calls} for (caller, callee), calls in self.public.items()
            ],
            "inflight": self.port.inflight + sum(cast("int", e["inflight"]) for e in edges),
        }

    @property
    def inflight(self) -> int:
        return self.port.inflight + sum(e.stats.inflight for edges in self._edges.values() for e in edges)

    async def drain(self, timeout_s: float) -> bool:
        """Finish the calls that others make here. False when the time ran out."""
        done = await asyncio.gather(self.port.drain(timeout_s), self._face.drain(timeout_s))
        return all(done)

    async def stop(self) -> None:
        """Close everything at once."""
        await asyncio.gather(*(channel.close(0.0) for channel in self._channels.values()))
        self._channels.clear()
        await self.port.stop()
        await self._face.stop()
        if self.policy.point is not None:
            await self.policy.point.close()
        await self.owner.stop()
