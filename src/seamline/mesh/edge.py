"""One edge of the call graph: a method as one module calls it, with every rule that applies to such a call.

A call in the same process whose edge has no rule beyond policy and deadline takes the short way that the stub
holds itself (see stub.py). Every other call comes through :meth:`Edge.call` or :meth:`Edge.stream`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, Any

from seamline.kernel.codec import CodecError
from seamline.kernel.settings import MeshRules
from seamline.kernel.signal.trace import TraceContext, new_span_id
from seamline.mesh.copies import Upstream, callers_own, copy_arguments, encode_arguments
from seamline.mesh.hedge import first_answer
from seamline.mesh.injected import inject, injects
from seamline.mesh.limits import PRIORITIES, CircuitBreaker, Patience, RetryBudget
from seamline.mesh.local import seen_by_caller
from seamline.mesh.outcome import (
    deadline_exceeded,
    error_body,
    error_of,
    overloaded,
)
from seamline.mesh.policy.rules import Elsewhere
from seamline.mesh.told import Told, Tried, served
from seamline.module.context import CURRENT, CallContext
from seamline.module.contract import UNARY, MethodSpec
from seamline.module.errors import (
    CallError,
    DeadlineExceeded,
    InternalError,
    Overloaded,
    Unavailable,
    Unreachable,
)
from seamline.module.values import Fault

if TYPE_CHECKING:
    from seamline.mesh.balance import Replica
    from seamline.mesh.mesh import Mesh
    from seamline.mesh.service import Entry
    from seamline.module.principal import Subject

_FAILURES = (Unavailable, DeadlineExceeded, InternalError, Overloaded)
_TELLS_LATENCY = (Fault, InternalError, DeadlineExceeded)


def _failed(failure: BaseException | None) -> bool:
    """Whether the callee is unwell. One that says when to come again is busy, and well."""
    return isinstance(failure, _FAILURES) and not (isinstance(failure, Overloaded) and failure.retry_after_s)


class Edge(Told):
    """A method as called by one module."""

    __slots__ = (
        "breaker", "budget", "fast", "faults", "mesh", "own_priority", "priority", "revocations", "root", "rules",
        "spec", "timeout_s",
    )  # fmt: skip

    def __init__(self, mesh: Mesh, caller: str, callee: str, spec: MethodSpec) -> None:
        super().__init__(mesh.tracer, caller, callee, spec)
        self.mesh = mesh
        self.revocations = mesh.revocations
        self.spec = spec
        self.faults = mesh.faults_of(spec.contract)
        self.fast: Callable[..., Any] | None = None
        self.root: Callable[[], TraceContext] = mesh.tracer.aside if spec.action else mesh.tracer.root
        """Begins the trace of a call that is made in the course of no other."""
        self._take(mesh.rules_of(spec))
        self.refresh()

    def _take(self, rules: MeshRules) -> None:
        self.rules = rules
        self.timeout_s = rules.timeout_s
        self.priority = PRIORITIES[rules.priority]
        self.own_priority = None if rules.priority == "normal" else self.priority
        """None: a call made while serving another has that one's priority."""
        self.breaker = CircuitBreaker(
            rules.circuit_error_ratio, rules.circuit_calls_min, rules.circuit_window_s, rules.circuit_open_s
        )
        self.budget = RetryBudget(rules.retry_budget_ratio, rules.retry_budget_min_per_s, monotonic())

    def refresh(self) -> None:
        """Look up again what a change of policy, placement or rules may have changed."""
        rules = self.mesh.rules_of(self.spec)
        if rules != self.rules:  # what breaker and budget have learned outlives every other change
            self._take(rules)
        self.entry = self.mesh.services.entries.get(self.name)
        plain = (
            self.entry is not None
            and self.spec.kind == UNARY
            and not self.mesh.copies
            and not injects(rules)
            and not rules.concurrency_max
            and not rules.mirror_percent
            and self.mesh.decision(self.caller, self.callee, self.spec) is True
        )
        self.fast = self.entry.handler if plain and self.entry is not None else None

    def begin(self, arguments: tuple[Any, ...], parent: CallContext | None) -> CallContext:
        """The context of a new call, made in the course of ``parent``.

        Raises PermissionDenied, Unauthenticated or DeadlineExceeded.
        """
        now = monotonic()
        deadline = now + self.timeout_s
        priority = self.priority
        key = None
        subject = None
        if parent is None:
            trace: TraceContext | None = self.root()
        else:
            trace = parent.origin
            key = parent.key_for_calls
            deadline = min(parent.deadline, deadline)
            if self.own_priority is None:
                priority = parent.priority
            if parent.subject is not None:
                subject = parent.subject.acting(self.caller)
                self.revocations.check(subject)
        self.judge(subject, arguments)
        if deadline <= now:
            raise deadline_exceeded(self.name)
        return CallContext(self.callee, self.caller, self.name, deadline, trace, priority, key, None, subject, 0)

    def judge(self, subject: Subject | None, arguments: tuple[Any, ...]) -> None:
        """Ask policy about a call. Raises PermissionDenied or Unauthenticated."""
        decision = self.mesh.decision(self.caller, self.callee, self.spec)
        if decision is not True and (decision is False or not decision(subject, arguments)):
            raise self.mesh.denied(self.caller, self.callee, self.spec.permission, subject, arguments)

    async def _consult(self, context: CallContext, arguments: tuple[Any, ...]) -> None:
        """Ask another decision point about a call that leaves the process; where it arrives, it is asked again."""
        decision = self.mesh.decision(self.caller, self.callee, self.spec)
        if isinstance(decision, Elsewhere):
            await self.mesh.consult(decision, context.subject, arguments)

    def proof(self, context: CallContext) -> str | None:
        """What proves to the callee in another process on whose behalf the call is made."""
        subject = context.subject
        return self.mesh.delegation.token(subject, self.callee) if subject is not None else None

    def _begun(self, arguments: tuple[Any, ...]) -> tuple[CallContext, int, int]:
        """The context of a new call, the id of its span at the caller, and that of the span around it."""
        parent = CURRENT.get(None)
        try:
            context = self.begin(arguments, parent)
        except CallError as error:
            self.refused(parent, error)
            raise
        # A callee in another process has a context of its own, so that this one is the caller's alone.
        span_id = context.span_id() if self.entry is None else new_span_id()
        return context, span_id, parent.span_id() if parent is not None else 0

    # Unary calls, and those whose caller streams.

    async def call(self, arguments: tuple[Any, ...]) -> Any:
        """Make a call with one result, with every rule applied."""
        context, span_id, parent_id = self._begun(arguments)
        tried = Tried()
        started = monotonic()
        failure: BaseException | None = None
        self.stats.inflight += 1
        try:
            if injects(self.rules):
                await inject(self.rules, self.name, context.deadline)
            if self.entry is None and self.mesh.policy.point is not None:
                await self._consult(context, arguments)
            return await self._attempts(arguments, context, span_id, tried)
        except Fault as fault:
            failure = fault
            raise fault from None
        except BaseException as error:
            failure = error
            raise
        finally:
            self.ended(context, span_id, parent_id, started, failure, tried)

    async def _attempts(self, arguments: tuple[Any, ...], context: CallContext, span_id: int, tried: Tried) -> Any:
        entry = self.entry
        body, upstream = (b"", None) if entry is not None else self._encoded(arguments, context)
        attempt = 0
        waiting = Patience(self.rules.wait_for_ready_s, context.deadline)
        self.budget.call()
        while True:
            try:
                if entry is not None:
                    return await self._attempt_local(entry, arguments, context, span_id)
                if self.rules.hedge_after_ms > 0 and self.spec.readonly and upstream is None:
                    data = await first_answer(
                        lambda: self._attempt(body, None, context, tried),
                        self.rules.hedge_after_ms / 1000,
                        lambda: self._may_hedge(tried),
                    )
                else:
                    data = await self._attempt(body, upstream, context, tried)
                return self._decoded(data)
            except Unreachable as error:
                await waiting.pause(error)
            except (Unavailable, Overloaded) as error:
                attempt += 1
                touched = self.spec.stream_parameter is not None if upstream is None else upstream.touched
                await self._before_retry(error, attempt, context, touched=touched)

    async def _before_retry(self, error: CallError, attempt: int, context: CallContext, *, touched: bool) -> None:
        """Wait for the next attempt, or raise ``error`` if there may be none."""
        rules = self.rules
        safe = not touched and (not error.started or self.spec.idempotent)
        if attempt > rules.retries or not safe or not self.budget.take(monotonic()):
            raise error
        pause = rules.retry_backoff_ms / 1000 * 2 ** (attempt - 1) * (0.5 + random.random())
        if monotonic() + pause >= context.deadline:
            raise error
        self.stats.retries += 1
        await asyncio.sleep(pause)

    def _may_hedge(self, tried: Tried) -> bool:
        if not self.budget.take(monotonic()):
            return False
        tried.hedged = True
        self.stats.retries += 1
        return True

    async def _attempt_local(self, entry: Entry, arguments: tuple[Any, ...], context: CallContext, span_id: int) -> Any:
        copies = self.mesh.copies
        arguments = self._handed_over(arguments, context)
        limit = entry.limit if self.rules.concurrency_max else None
        if limit is not None and not limit.admit(context.priority):
            raise overloaded(self.name, f"{limit.inflight} calls are under way")
        started = monotonic()
        failure: BaseException | None = None
        try:
            result = await self.mesh.serve(entry, arguments, context)
        except Fault as fault:
            failure = fault
            raise (self._copied_fault(fault) if copies else fault) from None
        except BaseException as error:
            failure = error
            raise
        finally:
            seconds = monotonic() - started
            served(self.tracer, entry, context, span_id, started, seconds, failure)
            if limit is not None:
                limit.release(seconds)
        return self._copied(result, entry, context) if copies else result

    async def _attempt(self, body: bytes, upstream: Upstream | None, context: CallContext, tried: Tried) -> bytes:
        replica = self._pick(tried)
        breaker = self.breaker
        ticket = self._admitted(breaker)
        started = 0.0
        failure: BaseException | None = None
        replica.inflight += 1
        try:
            channel = replica.channels.get(self.caller)
            if channel is None or not channel.open:
                started = monotonic()
                channel = await self.mesh.channel(self.caller, self.callee, replica, context.deadline)
            started = monotonic()
            return await channel.unary(self, body, context, upstream)
        except BaseException as error:
            failure = error
            raise
        finally:
            now = monotonic()
            self._learn(replica, now, now - started if started else None, failure)
            self._tell(breaker, ticket, now, failure)

    # Streams.

    async def stream(self, arguments: tuple[Any, ...]) -> AsyncGenerator[Any]:
        """Make a call whose result is a stream."""
        context, span_id, parent_id = self._begun(arguments)
        tried = Tried()
        started = monotonic()
        failure: BaseException | None = None
        self.stats.inflight += 1
        try:
            if injects(self.rules):
                await inject(self.rules, self.name, context.deadline)
            entry = self.entry
            if entry is None and self.mesh.policy.point is not None:
                await self._consult(context, arguments)
            if entry is not None:
                items = self._stream_local(entry, arguments, context, span_id)
            else:
                items = self._stream_remote(arguments, context, tried)
            async with aclosing(items):
                async for item in items:
                    yield item
        except Fault as fault:
            failure = fault
            raise fault from None
        except BaseException as error:
            failure = error
            raise
        finally:
            self.ended(context, span_id, parent_id, started, failure, tried)

    async def _stream_local(
        self, entry: Entry, arguments: tuple[Any, ...], context: CallContext, span_id: int
    ) -> AsyncGenerator[Any]:
        copies = self.mesh.copies
        arguments = self._handed_over(arguments, context)
        limit = entry.limit if self.rules.concurrency_max else None
        if limit is not None and not limit.admit(context.priority):
            raise overloaded(self.name, f"{limit.inflight} calls are under way")
        started = monotonic()
        failure: BaseException | None = None
        try:
            async with aclosing(self.mesh.serve_stream(entry, arguments, context)) as items:
                async for item in items:
                    yield self._copied(item, entry, context) if copies else item
        except Fault as fault:
            failure = fault
            raise (self._copied_fault(fault) if copies else fault) from None
        except BaseException as error:
            failure = error
            raise
        finally:
            served(self.tracer, entry, context, span_id, started, monotonic() - started, failure)
            if limit is not None:
                limit.release(None)

    async def _stream_remote(
        self, arguments: tuple[Any, ...], context: CallContext, tried: Tried
    ) -> AsyncGenerator[Any]:
        body, upstream = self._encoded(arguments, None)
        attempt = 0
        waiting = Patience(self.rules.wait_for_ready_s, context.deadline)
        self.budget.call()
        while True:
            begun = False
            try:
                async with aclosing(self._attempt_stream(body, upstream, context, tried)) as items:
                    async for data in items:
                        begun = True
                        yield self._decoded(data)
                return
            except Unreachable as error:
                await waiting.pause(error)
            except (Unavailable, Overloaded) as error:
                attempt += 1
                touched = begun or (upstream is not None and upstream.touched)
                await self._before_retry(error, attempt, context, touched=touched)

    async def _attempt_stream(
        self, body: bytes, upstream: Upstream | None, context: CallContext, tried: Tried
    ) -> AsyncGenerator[bytes]:
        replica = self._pick(tried)
        breaker = self.breaker
        ticket = self._admitted(breaker)
        failure: BaseException | None = None
        first_s: float | None = None
        replica.inflight += 1
        try:
            channel = await self.mesh.channel(self.caller, self.callee, replica, context.deadline)
            started = monotonic()
            async with aclosing(channel.stream(self, body, context, upstream)) as items:
                async for data in items:
                    if first_s is None:
                        first_s = monotonic() - started
                    yield data
        except BaseException as error:
            failure = error
            raise
        finally:
            now = monotonic()
            self._learn(replica, now, first_s, failure)
            # A reader that leaves early has seen it work.
            left = isinstance(failure, GeneratorExit) and first_s is not None
            self._tell(breaker, ticket, now, None if left else failure)

    # What both share.

    def _encoded(self, arguments: tuple[Any, ...], mirrored: CallContext | None) -> tuple[bytes, Upstream | None]:
        body, upstream = encode_arguments(self.spec, arguments)
        percent = self.rules.mirror_percent
        if mirrored is not None and percent > 0 and upstream is None and random.random() * 100 < percent:
            self.mesh.mirror(self, body, mirrored)
        return body, upstream

    def _decoded(self, data: bytes) -> Any:
        try:
            return self.spec.result.decode(data)
        except CodecError as error:
            raise InternalError(
                f"{self.name} answered with something else than its contract says: {error.fact}",
                "The callee runs another version of the contract.",
            ) from None

    def _pick(self, tried: Tried) -> Replica:
        replica = self.mesh.pick(self.callee, self.rules, tried)
        tried.append(replica)
        return replica

    def _admitted(self, breaker: CircuitBreaker) -> int:
        ticket = breaker.admit(monotonic())
        if ticket is None:
            refusal = Unavailable(
                f"{self.name} is not called for a while: too many of its calls failed",
                "Find out why they fail; it is tried again by itself.",
            )
            refusal.started = False
            raise refusal
        return ticket

    def _learn(self, replica: Replica, now: float, latency_s: float | None, failure: BaseException | None) -> None:
        """What a call that has ended says of the replica that served it."""
        replica.inflight -= 1
        if isinstance(failure, (Unavailable, Overloaded)) and _failed(failure):
            replica.failed(now, self.rules, self.mesh.may_eject(self.callee, now, self.rules))
        elif isinstance(failure, Overloaded):
            replica.busy(now, failure.retry_after_s)
        elif latency_s is not None and (failure is None or isinstance(failure, _TELLS_LATENCY)):
            replica.observe(now, latency_s)
            if not isinstance(failure, DeadlineExceeded):
                replica.succeeded()
        elif latency_s is not None and latency_s > replica.latency_s and isinstance(failure, asyncio.CancelledError):
            replica.observe(now, latency_s)  # at least: one that answers nobody would look fast to all who give up

    def _tell(self, breaker: CircuitBreaker, ticket: int, now: float, failure: BaseException | None) -> None:
        if failure is None or (isinstance(failure, (Fault, CallError)) and not isinstance(failure, Unreachable)):
            breaker.record(ticket, now, not _failed(failure))
        else:
            breaker.forget(ticket)

    def _handed_over(self, arguments: tuple[Any, ...], context: CallContext) -> tuple[Any, ...]:
        """The arguments as a handler in this process gets them. Raises PermissionDenied or Unauthenticated.

        Policy is asked about these again, as a callee elsewhere asks: the caller may have changed them since.
        """
        if self.mesh.copies:
            arguments = copy_arguments(self.spec, arguments)
        self.judge(context.subject, arguments)
        if self.spec.item is None or self.mesh.copies:
            return arguments
        return (*arguments[:-1], callers_own(arguments[-1]))

    def _copied(self, value: Any, entry: Entry, context: CallContext) -> Any:
        try:
            data = self.spec.result.encode(value)
        except Exception as error:
            raise seen_by_caller(error, entry, context) from None
        return self._decoded(data)

    def _copied_fault(self, fault: Fault) -> Exception:
        return error_of(error_body(fault), self.name, self.faults)
