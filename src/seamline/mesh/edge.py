"""One edge of the call graph: a method as one module calls it, with every rule that applies to such a call.

A call in the same process whose edge has no rule beyond policy and deadline takes the short way that the stub
holds itself (see stub.py). Every other call comes through :meth:`Edge.call` or :meth:`Edge.stream`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from seamline.kernel.codec import CodecError
from seamline.kernel.settings import MeshRules
from seamline.kernel.signal.metrics import EdgeStats
from seamline.mesh.limits import PRIORITIES, CircuitBreaker, RetryBudget
from seamline.mesh.local import seen_by_caller, stream_local
from seamline.mesh.outcome import deadline_exceeded, overloaded
from seamline.module.context import CURRENT, CallContext
from seamline.module.contract import MethodSpec
from seamline.module.errors import (
    CallError,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    Overloaded,
    PermissionDenied,
    Unavailable,
)
from seamline.module.values import Fault

if TYPE_CHECKING:
    from seamline.mesh.balance import Replica
    from seamline.mesh.mesh import Mesh
    from seamline.mesh.service import Entry

_FAILURES = (Unavailable, DeadlineExceeded, InternalError, Overloaded)
_INJECTABLE: dict[str, type[CallError]] = {
    cls.connect: cls for cls in (Unavailable, DeadlineExceeded, InternalError, Overloaded, PermissionDenied)
}


class Edge:
    """A method as called by one module."""

    __slots__ = (
        "breaker", "budget", "callee", "caller", "entry", "fast", "faults", "mesh", "name", "priority", "rules",
        "spec", "stats", "timeout_s",
    )  # fmt: skip

    def __init__(self, mesh: Mesh, caller: str, callee: str, spec: MethodSpec) -> None:
        self.mesh = mesh
        self.caller = caller
        self.callee = callee
        self.spec = spec
        self.name = spec.full_name
        self.faults = mesh.faults_of(spec.contract)
        self.stats = EdgeStats()
        self.entry: Entry | None = None
        self.fast: Callable[..., Any] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Look up again what a change of policy, placement or rules may have changed."""
        rules = self.mesh.rules_of(self.spec)
        self.rules: MeshRules = rules
        self.timeout_s = rules.timeout_s
        self.priority = PRIORITIES[rules.priority]
        self.breaker = CircuitBreaker(
            rules.circuit_error_ratio, rules.circuit_calls_min, rules.circuit_window_s, rules.circuit_open_s
        )
        self.budget = RetryBudget(rules.retry_budget_ratio, rules.retry_budget_min_per_s, monotonic())
        self.entry = self.mesh.services.entries.get(self.name)
        plain = (
            self.entry is not None
            and not self.mesh.copies
            and not _injects(rules)
            and not rules.concurrency_max
            and not rules.mirror_percent
            and self.permitted()
        )
        self.fast = self.entry.handler if plain and self.entry is not None else None

    def permitted(self) -> bool:
        contract, method = self.spec.contract, self.spec.name
        return self.mesh.policy.allows(self.caller, self.callee, contract, method)

    def begin(self) -> CallContext:
        """The context of a new call. Raises PermissionDenied or DeadlineExceeded."""
        if not self.permitted():
            raise self.mesh.denied(self.caller, self.callee, self.spec.contract, self.spec.name)
        now = monotonic()
        deadline = now + self.timeout_s
        parent = CURRENT.get(None)
        priority = self.priority
        if parent is None:
            trace = self.mesh.tracer.root()
        else:
            trace = parent.trace
            deadline = min(parent.deadline, deadline)
            if self.rules.priority == "normal":
                priority = parent.priority
        if deadline <= now:
            raise deadline_exceeded(self.name)
        return CallContext(self.callee, self.caller, self.name, deadline, trace, priority)

    async def call(self, arguments: tuple[Any, ...]) -> Any:
        """Make a unary (or client-streaming) call with every rule applied."""
        context = self.begin()
        stats = self.stats
        stats.inflight += 1
        parent = context.trace
        if parent is not None and parent.sampled:
            context.trace = parent.child()
        started = monotonic()
        status = "cancelled"
        try:
            if _injects(self.rules):
                await self._inject(context)
            result = await self._attempts(arguments, context)
            status = "ok"
            return result
        except Fault as fault:
            status = "ok"
            raise fault from None
        except CallError as error:
            status = error.connect
            raise
        finally:
            elapsed = monotonic() - started
            stats.inflight -= 1
            stats.record(elapsed, status == "ok")
            trace = context.trace
            if trace is not None and trace.sampled and parent is not None:
                self.mesh.tracer.record(
                    trace, parent.span_id, self.name, "client", self.caller, self.callee, elapsed, status
                )

    async def _attempts(self, arguments: tuple[Any, ...], context: CallContext) -> Any:
        rules, spec = self.rules, self.spec
        attempt = 0
        tried: list[Replica] = []
        self.budget.call()
        hedged = rules.hedge_after_ms > 0 and spec.readonly and self.entry is None and spec.stream_parameter is None
        while True:
            try:
                if hedged:
                    return await self._hedge(arguments, context)
                return await self._attempt(arguments, context, tried)
            except (Unavailable, Overloaded) as error:
                attempt += 1
                if attempt > rules.retries or not self._may_retry(error) or not self.budget.take(monotonic()):
                    raise
                pause = rules.retry_backoff_ms / 1000 * 2 ** (attempt - 1) * (0.5 + random.random())
                if monotonic() + pause >= context.deadline:
                    raise
            self.stats.retries += 1
            await asyncio.sleep(pause)

    def _may_retry(self, error: CallError) -> bool:
        if self.spec.stream_parameter is not None:
            return False
        return not error.started or self.spec.idempotent

    async def _attempt(self, arguments: tuple[Any, ...], context: CallContext, tried: list[Replica]) -> Any:
        entry = self.entry
        if entry is not None:
            return await self._attempt_local(entry, arguments, context)
        now = monotonic()
        if not self.breaker.admit(now):
            refusal = Unavailable(
                f"{self.name} is not called for a while: too many of its calls failed",
                "Find out why they fail; it is tried again by itself.",
            )
            refusal.started = False
            raise refusal
        ok: bool | None = None
        try:
            replica = self.mesh.pick(self.callee, self.rules, tried)
            tried.append(replica)
            result = await self._remote(replica, arguments, context)
            ok = True
            return result
        except Fault as fault:
            ok = True
            raise fault from None
        except CallError as error:
            ok = not isinstance(error, _FAILURES)
            raise
        finally:
            if ok is None:
                self.breaker.forget()
            else:
                self.breaker.record(monotonic(), ok)

    async def _attempt_local(self, entry: Entry, arguments: tuple[Any, ...], context: CallContext) -> Any:
        limit = entry.limit if self.rules.concurrency_max else None
        if limit is not None and not limit.admit(context.priority):
            raise overloaded(self.name, f"{limit.inflight} calls are under way")
        if self.mesh.copies:
            arguments = self.copy_arguments(arguments)
        started = monotonic()
        try:
            result = await self.mesh.serve(entry, arguments, context)
        except Fault as fault:
            raise (type(fault).decode(fault.encode()) if self.mesh.copies else fault) from None
        finally:
            if limit is not None:
                limit.release(monotonic() - started)
        return self.copy_result(result) if self.mesh.copies else result

    async def _remote(self, replica: Replica, arguments: tuple[Any, ...], context: CallContext) -> Any:
        stream: AsyncIterator[Any] | None = None
        if self.spec.stream_parameter is not None:
            stream, arguments = arguments[-1], arguments[:-1]
        body = self.encode_arguments(arguments)
        self._mirror(body, context)
        replica.inflight += 1
        try:
            channel = await self.mesh.channel(self.caller, self.callee, replica.endpoint, context.deadline)
            started = monotonic()
            data = await channel.unary(self, body, context, stream)
            now = monotonic()
            replica.observe(now, now - started)
        except (Unavailable, Overloaded):
            now = monotonic()
            replica.failed(now, self.rules, self.mesh.may_eject(self.callee, now, self.rules))
            raise
        finally:
            replica.inflight -= 1
        replica.succeeded()
        try:
            return self.spec.result.decode(data)
        except CodecError as error:
            raise InternalError(
                f"{self.name} answered with something else than its contract says: {error.fact}",
                "The callee runs another version of the contract.",
            ) from None

    async def _hedge(self, arguments: tuple[Any, ...], context: CallContext) -> Any:
        """Ask a second replica when the first is slow; the first answer wins."""
        loop = asyncio.get_running_loop()
        tried: list[Replica] = []
        tasks = {loop.create_task(self._attempt(arguments, context, tried))}
        pending = tasks
        wait_s: float | None = self.rules.hedge_after_ms / 1000
        failure: BaseException | None = None
        try:
            while True:
                done, pending = await asyncio.wait(pending, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    failure = task.exception()
                    if failure is None or isinstance(failure, Fault):
                        return task.result()
                if len(tasks) == 1 and not done and self.budget.take(monotonic()):
                    second = loop.create_task(self._attempt(arguments, context, tried))
                    self.stats.retries += 1
                    tasks.add(second)
                    pending = {*pending, second}
                wait_s = None
                if not pending:
                    assert failure is not None
                    raise failure
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _mirror(self, body: bytes, context: CallContext) -> None:
        rules = self.rules
        if rules.mirror_percent <= 0 or random.random() * 100 >= rules.mirror_percent:
            return
        replica = self.mesh.named_replica(self.callee, rules.mirror_to)
        if replica is not None and self.spec.stream_parameter is None:
            self.mesh.owner.spawn(self._send_mirror(replica, body, context), name=f"mirror {self.name}")

    async def _send_mirror(self, replica: Replica, body: bytes, context: CallContext) -> None:
        try:
            channel = await self.mesh.channel(self.caller, self.callee, replica.endpoint, context.deadline)
            await channel.unary(self, body, context, None)
        except (CallError, Fault):
            self.mesh.mirror_failures += 1

    async def stream(self, arguments: tuple[Any, ...]) -> AsyncIterator[Any]:
        """Make a call whose result is a stream."""
        context = self.begin()
        started = monotonic()
        status = "cancelled"
        self.stats.inflight += 1
        try:
            if _injects(self.rules):
                await self._inject(context)
            entry = self.entry
            if entry is not None:
                items = self._stream_local(entry, arguments, context)
            else:
                items = self._stream_remote(arguments, context)
            async for item in items:
                yield item
            status = "ok"
        except CallError as error:
            status = error.connect
            raise
        except Fault as fault:
            status = "ok"
            raise fault from None
        finally:
            self.stats.inflight -= 1
            self.stats.record(monotonic() - started, status == "ok")

    async def _stream_local(self, entry: Entry, arguments: tuple[Any, ...], context: CallContext) -> AsyncIterator[Any]:
        copies = self.mesh.copies
        if copies:
            arguments = self.copy_arguments(arguments)
        async for item in stream_local(entry, arguments, context):
            yield self.copy_result(item) if copies else item

    async def _stream_remote(self, arguments: tuple[Any, ...], context: CallContext) -> AsyncIterator[Any]:
        upstream: AsyncIterator[Any] | None = None
        if self.spec.stream_parameter is not None:
            upstream, arguments = arguments[-1], arguments[:-1]
        body = self.encode_arguments(arguments)
        replica = self.mesh.pick(self.callee, self.rules, [])
        replica.inflight += 1
        try:
            channel = await self.mesh.channel(self.caller, self.callee, replica.endpoint, context.deadline)
            async for data in channel.stream(self, body, context, upstream):
                yield self.spec.result.decode(data)
        except (Unavailable, Overloaded):
            now = monotonic()
            replica.failed(now, self.rules, self.mesh.may_eject(self.callee, now, self.rules))
            raise
        finally:
            replica.inflight -= 1

    def encode_arguments(self, arguments: tuple[Any, ...]) -> bytes:
        """The parameters as they travel. Raises InvalidArgument."""
        try:
            return self.spec.encode_request(arguments)
        except Exception as error:
            raise self._unfit(error) from None

    def copy_arguments(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments as the other side of a wire would see them."""
        if self.spec.stream_parameter is not None:
            assert self.spec.item is not None
            stream = _copied(arguments[-1], self.spec.item.copy)
            return (*self.copy_arguments_of(arguments[:-1]), stream)
        return self.copy_arguments_of(arguments)

    def copy_arguments_of(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        try:
            return self.spec.decode_request(self.spec.encode_request(arguments))
        except Exception as error:
            raise self._unfit(error) from None

    def copy_result(self, result: Any) -> Any:
        try:
            return self.spec.result.copy(result)
        except Exception as error:
            raise seen_by_caller(error, self._entry(), CallContext(self.callee, self.caller)) from None

    def _entry(self) -> Entry:
        assert self.entry is not None
        return self.entry

    def _unfit(self, error: Exception) -> InvalidArgument:
        detail = error.fact if isinstance(error, CodecError) else str(error)
        return InvalidArgument(
            f"the arguments of {self.name} do not fit: {' '.join(detail.split())[:300]}",
            "Pass values of the types that the contract declares.",
        )

    async def _inject(self, context: CallContext) -> None:
        rules = self.rules
        if rules.inject_delay_ms > 0 and random.random() * 100 < rules.inject_delay_percent:
            await self._pause(rules.inject_delay_ms / 1000, context)
        if random.random() * 100 < rules.inject_drop_percent:
            await self._pause(float("inf"), context)
        if rules.inject_error not in ("", "crash") and random.random() * 100 < rules.inject_error_percent:
            cls = _INJECTABLE.get(rules.inject_error, InternalError)
            raise cls(f"{self.name} failed by an injected fault", "Remove the rule: `seamline inject --clear`.")

    async def _pause(self, seconds: float, context: CallContext) -> None:
        left = context.deadline - monotonic()
        if seconds < left:
            await asyncio.sleep(seconds)
            return
        await asyncio.sleep(max(left, 0.0))
        raise deadline_exceeded(self.name)


def _injects(rules: MeshRules) -> bool:
    return bool(rules.inject_delay_percent or rules.inject_error_percent or rules.inject_drop_percent)


async def _copied(stream: AsyncIterator[Any], copy: Callable[[Any], Any]) -> AsyncIterator[Any]:
    async for item in stream:
        yield copy(item)
