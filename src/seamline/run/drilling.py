"""The faults of a drill inside a worker: put up, held for as long as it is said again, and taken away.

Nothing of it stands in the way of a call while no drill runs: handlers are wrapped, sockets shaped and databases slowed
only meanwhile. A fault ends by itself when its lease does, whatever became of who asked for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from contextlib import AsyncExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.signal import log
from seamline.module.context import CURRENT, CallContext
from seamline.module.contract import UNARY
from seamline.observe.detect.detector import SCORE_PREFIX
from seamline.observe.drills.catalog import FAULTS, Order
from seamline.run.errors import UnknownTargetError
from seamline.run.shaping import Shaper

if TYPE_CHECKING:
    from seamline.kernel.signal.measures import Measure
    from seamline.kernel.store import Database
    from seamline.mesh.service import Entry
    from seamline.module.module import EventHandler
    from seamline.run.host import Host

Handler = Callable[..., Awaitable[Any]]
_EMPTY: Final[Mapping[type[object], Callable[[], object]]] = {each: each for each in (list, dict, tuple, set, str)}
LEAK_BYTES_MAX: Final = 512 * 1024 * 1024
_SLICE_S: Final = 0.01
_log = log.get("seamline.run")


class DrillError(RuntimeError):
    """What a drill raises in a module's code."""


class Drilling:
    """The drills that run in one process."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._owner = TaskOwner("drills")
        self.held: dict[str, Held] = {}
        """Those that are up, by id."""
        self._inner: Callable[[Entry], Callable[..., Any]] | None = None

    async def ask(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """``hold`` an order, ``end`` one by its id, or ``list``."""
        if operation == "hold":
            return {"effects": await self.hold(msgspec.convert(arguments["order"], Order))}
        if operation == "end":
            return {"ended": await self.end(str(arguments["id"]))}
        return {"drills": [msgspec.to_builtins(held.order) for held in self.held.values()]}

    async def hold(self, order: Order) -> int:
        """Put the fault up, or hold it longer; how often it has struck in this process."""
        held = self.held.get(order.id)
        if held is None:
            held = self.held[order.id] = Held(order)
            try:
                await self._put_up(held)
            except BaseException:
                del self.held[order.id]
                await held.stack.aclose()
                raise
            self._owner.spawn(self._expire(held), name=f"drill {order.id}")
            if held.folder:  # elsewhere it is not worth a line
                _log.warning("%s: %s on %s", order.id, order.fault, order.method or order.module)
        held.until = self._host.clock.monotonic() + order.lease_s
        self._shape(held)
        return held.struck

    async def end(self, name: str) -> bool:
        """Take the fault away; False if it is not there."""
        held = self.held.pop(name, None)
        if held is None:
            return False
        self._rewrap()
        await held.stack.aclose()
        if held.folder:
            _log.warning("%s is over", name)
        return True

    async def stop(self) -> None:
        for name in list(self.held):
            await self.end(name)
        await self._owner.stop()

    async def _expire(self, held: Held) -> None:
        clock = self._host.clock
        while (left_s := held.until - clock.monotonic()) > 0:
            await clock.sleep(left_s)
        await self.end(held.order.id)

    async def _put_up(self, held: Held) -> None:
        order = held.order
        where = FAULTS[order.fault].where
        module = next((each for each in self._host.modules if each.name == order.module), None)
        if module is not None:
            held.folder = f"{module.folder}/"
        if where == "handler":
            self._rewrap()
        elif module is None:
            return  # it is elsewhere; here may be its callers
        elif where == "process":
            held.stack.push_async_exit(_ended(self._owner.spawn(_burn(held), name="burn")))
        elif where == "database":
            database = self._host.databases.get(order.module)
            if database is None:
                raise UnknownTargetError(f"module {order.module!r} has no database", "Name one that has.")
            if order.fault == "lock":
                held.stack.push_async_exit(_ended(self._owner.spawn(_hold_writer(held, database), name="lock")))
            else:
                held.stack.enter_context(_slowed(held, database))
        elif where == "events":
            handlers = module.event_handlers
            if not handlers:
                raise UnknownTargetError(f"module {order.module!r} handles no events", "Name one that does.")
            for handler in handlers:
                held.stack.enter_context(_poisoned(held, handler))

    # Measures.

    def shifted(self, measures: Iterable[Measure]) -> Iterable[Measure]:
        """What a process has measured, with the scores of models moved by the drifts that are up."""
        drifts = [held for held in self.held.values() if FAULTS[held.order.fault].where == "score"]
        return [_drifted(each, drifts) for each in measures] if drifts else measures

    # Handlers.

    def _rewrap(self) -> None:
        """Put around each handler what is to be there now; nothing if nothing is."""
        mesh = self._host.mesh
        wanted = any(FAULTS[held.order.fault].where == "handler" for held in self.held.values())
        if wanted and self._inner is None:
            self._inner = mesh.around or _provided
            mesh.around = self._around
        elif not wanted and self._inner is not None:
            mesh.around, self._inner = self._inner, None
        mesh.refresh()

    def _around(self, entry: Entry) -> Callable[..., Any]:
        assert self._inner is not None
        handler = self._inner(entry)
        if entry.spec.kind != UNARY or entry.spec.action:
            return handler
        for held in self.held.values():
            order = held.order
            if FAULTS[order.fault].where == "handler" and order.module == entry.module and _meant(order, entry):
                handler = _wrapped(held, entry, handler)
        return handler

    # Sockets.

    def _shape(self, held: Held) -> None:
        """Shape the connections that there are now; new ones are found when it is held again."""
        order = held.order
        if FAULTS[order.fault].where != "edge":
            return
        dice = random.Random(f"{order.id}")
        for caller, callee, connection in self._host.mesh.connections():
            if callee != order.module or order.caller not in ("", caller) or id(connection) in held.shaped:
                continue
            held.shaped[id(connection)] = connection
            held.struck += 1
            shaper = Shaper(connection, order.amount / 1000, order.share, dice)
            shaper.begin()
            held.stack.callback(shaper.end)


class Held:
    """One fault that is up in this process."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.until = 0.0
        self.struck = 0
        self.stack = AsyncExitStack()
        self.dice = random.Random(order.id)
        self.folder = ""
        """Where the module's code is."""
        self.kept: list[bytearray] = []
        self.answers: dict[str, Any] = {}
        self.shaped: dict[int, Any] = {}
        self.stack.callback(self.kept.clear)

    def strikes(self) -> bool:
        """Whether this call is meant."""
        hit = self.dice.random() < self.order.share
        self.struck += hit
        return hit


def _drifted(measure: Measure, drifts: Iterable[Held]) -> Measure:
    for held in drifts:
        order = held.order
        if measure.module == order.module and measure.name.startswith(SCORE_PREFIX) and measure.kind == "gauge":
            held.struck += 1
            measure = msgspec.structs.replace(measure, value=measure.value + order.amount)
    return measure


def _provided(entry: Entry) -> Callable[..., Any]:
    return entry.provided


def _meant(order: Order, entry: Entry) -> bool:
    return order.method in ("", entry.name, entry.name.partition(".")[0])


def _wrapped(held: Held, entry: Entry, handler: Callable[..., Any]) -> Handler:
    """The handler with the fault in it."""
    strike = _STRIKES[held.order.fault]

    async def drilled(*arguments: Any, **named: Any) -> Any:
        if held.strikes():
            return await strike(held, entry, lambda: handler(*arguments, **named))
        return await handler(*arguments, **named)

    return drilled


Run = Callable[[], Coroutine[Any, Any, Any]]
Strike = Callable[["Held", "Entry", Run], Awaitable[Any]]


async def _delayed(held: Held, _: Entry, run: Run) -> Any:
    await asyncio.sleep(held.order.amount / 1000)
    return await run()


async def _burning(held: Held, _: Entry, run: Run) -> Any:
    burn_cpu(held.order.amount / 1000)
    return await run()


async def _blocking(held: Held, _: Entry, run: Run) -> Any:
    time.sleep(held.order.amount / 1000)  # noqa: ASYNC251  # that is the fault
    return await run()


async def _leaking(held: Held, _: Entry, run: Run) -> Any:
    size = int(held.order.amount * 1024 * 1024)
    if (len(held.kept) + 1) * size <= LEAK_BYTES_MAX:
        held.kept.append(bytearray(b"\1") * size)
    return await run()


async def _failing(held: Held, entry: Entry, _: Run) -> Any:
    raise DrillError(f"drill {held.order.id}: {entry.name} fails")


async def _declaring(held: Held, entry: Entry, _: Run) -> Any:
    """End in a fault of the contract, if one can be made out of nothing."""
    for fault in entry.faults.values():
        with contextlib.suppress(Exception):
            declared = fault()
            break
    else:
        raise DrillError(f"drill {held.order.id}: {entry.name} declares no fault that can be made")
    raise declared


async def _raising(held: Held, entry: Entry, run: Run) -> Any:
    return await _Interrupted(run(), held.folder, DrillError(f"drill {held.order.id}: raised in {entry.name}"))


async def _emptied(held: Held, entry: Entry, run: Run) -> Any:
    """An answer of nothing if the result's type has one; else the first answer that it gave, without the work."""
    if entry.name not in held.answers:
        answer: object = await run()
        empty = _EMPTY.get(type(answer))
        held.answers[entry.name] = answer if empty is None else empty()
    return held.answers[entry.name]


class _Interrupted:
    """Awaits a coroutine, and raises ``error`` in the first line of code below ``folder`` that it comes to."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], folder: str, error: Exception) -> None:
        self._coroutine = coroutine
        self._folder = folder
        self._error = error
        self._raised = False

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[Any], Any] = self._coroutine.send
        sent: Any = None
        try:
            while True:
                waiting = self._traced(step, sent)
                try:
                    sent = yield waiting
                except BaseException as error:
                    step, sent = self._coroutine.throw, error
                else:
                    step = self._coroutine.send
        except StopIteration as stop:
            if not self._raised:
                raise self._error from None
            return stop.value

    def _traced(self, step: Callable[[Any], Any], sent: Any) -> Any:
        if self._raised:
            return step(sent)
        before = sys.gettrace()
        sys.settrace(self._look)
        try:
            return step(sent)
        finally:
            sys.settrace(before)

    def _look(self, frame: FrameType, _event: str, _value: object) -> Callable[..., Any] | None:
        return self._raise if frame.f_code.co_filename.startswith(self._folder) else None

    def _raise(self, _frame: FrameType, event: str, _value: object) -> None:
        if event == "line" and not self._raised:
            self._raised = True
            raise self._error


_STRIKES: Final[dict[str, Strike]] = {
    "delay": _delayed, "cpu": _burning, "block": _blocking, "leak": _leaking, "error": _failing, "fault": _declaring,
    "exception": _raising,
    "release": _raising, "empty": _emptied,
}  # fmt: skip


# Processes, databases, events.


def burn_cpu(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(200))


async def _burn(held: Held) -> None:
    """Work for nothing, in the module's name, in short turns of the loop."""
    CURRENT.set(CallContext(held.order.module, held.order.module, "burn"))
    share = min(held.order.amount, 0.95)
    while True:
        held.struck += 1
        burn_cpu(_SLICE_S)
        await asyncio.sleep(_SLICE_S * (1 - share) / share)


async def _hold_writer(held: Held, database: Database) -> None:
    CURRENT.set(CallContext(held.order.module, held.order.module, "lock"))
    while True:
        async with database.transaction() as connection:
            await connection.exec_driver_sql("SELECT 1")
            held.struck += 1
            await asyncio.sleep(held.order.amount / 1000)
        await asyncio.sleep(0.02)


@contextmanager
def _slowed(held: Held, database: Database) -> Generator[None]:
    """Each statement waits inside the database layer, holding what it holds."""
    from sqlalchemy.util import await_only

    def wait() -> None:
        if held.strikes():
            await_only(asyncio.sleep(held.order.amount / 1000))

    database.statements.before.append(wait)
    try:
        yield
    finally:
        database.statements.before.remove(wait)


@contextmanager
def _poisoned(held: Held, handler: EventHandler) -> Generator[None]:
    """Some events cannot be handled, however often they are tried; the lot falls once for each."""
    function = handler.function
    lots: dict[str, bool] = {}

    async def poisoned(given: Any, **arguments: Any) -> Any:
        key = repr(given)
        if lots.setdefault(key, held.strikes()):
            raise DrillError(f"drill {held.order.id}: this event cannot be handled")
        return await function(given, **arguments)

    object.__setattr__(handler, "function", poisoned)  # frozen for everybody else
    try:
        yield
    finally:
        object.__setattr__(handler, "function", function)


def _ended(task: asyncio.Task[None]) -> Callable[..., Awaitable[None]]:
    async def end(*_: object) -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    return end
