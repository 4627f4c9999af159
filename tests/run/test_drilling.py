"""A drill's faults inside one process: each is there while it is held, and nothing of it is left afterwards."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from seamline.kernel.clock import ManualClock
from seamline.kernel.errors import SeamlineError
from seamline.kernel.signal.measures import Measure
from seamline.module.errors import InternalError
from seamline.module.values import Fault
from seamline.observe.drills.catalog import FAULTS, Order
from seamline.run.application import Application
from seamline.run.drilling import Drilling, Held
from seamline.run.host import Host

FILES = {
    "seamline.toml": """
[app]
name = "drilled"
modules = ["drilled.cart", "drilled.window", "drilled.idle"]
""",
    "policy/all.cedar": "permit(principal, action, resource);",
    "drilled/idle/__init__.py": "",
    "drilled/idle/module.py": "from seamline import Module\nmodule = Module('idle')\n",
    "drilled/__init__.py": "",
    "drilled/cart/__init__.py": """
from seamline import Contract, Event, Fault

class Full(Fault):
    '''It holds no more.'''

class Added(Event):
    item: str

class Carts(Contract):
    async def add(self, item: str) -> list[str]: ...
    async def full(self) -> str: ...
""",
    "drilled/cart/module.py": """
import asyncio
from sqlalchemy import Column, MetaData, String, Table, insert, select
from seamline import Database, Events, Module
from drilled.cart import Added, Carts, Full

tables = MetaData()
items = Table("items", tables, Column("name", String, primary_key=True))
module = Module("cart", provides=Carts, tables=tables)

@module.service
class CartService(Carts):
    def __init__(self, db: Database, events: Events) -> None:
        self._db = db
        self._events = events

    async def add(self, item: str) -> list[str]:
        await asyncio.sleep(0)
        async with self._db.transaction() as connection:
            await connection.execute(insert(items).values(name=item))
            await self._events.publish(Added(item=item))
            return [row.name for row in await connection.execute(select(items))]

    async def full(self) -> str:
        raise Full()
""",
    "drilled/window/__init__.py": "",
    "drilled/window/module.py": """
from seamline import Module
from drilled.cart import Added

HEARD: list[str] = []
module = Module("window")

@module.on(Added)
async def hear(event: Added) -> None:
    HEARD.append(event.item)
""",
}


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Host]:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    application = Application.load(tmp_path)
    async with Host(application, data=tmp_path / "data", clock=ManualClock()) as host:
        yield host
    for name in [each for each in sys.modules if each.partition(".")[0] == "drilled"]:
        del sys.modules[name]


@pytest.fixture
async def drilling(host: Host) -> AsyncGenerator[Drilling]:
    drilling = Drilling(host)
    yield drilling
    await drilling.stop()


def order(fault: str, *, module: str = "cart", lease_s: float = 30.0, **more: Any) -> Order:
    known = FAULTS[fault]
    given: dict[str, Any] = {"amount": known.amount, "share": 1.0, **more}
    return Order(id=f"drill-{fault}", fault=fault, module=module, lease_s=lease_s, **given)


def only(drilling: Drilling) -> Held:
    (held,) = drilling.held.values()
    return held


async def struck(held: Held, times: int) -> None:
    """Wait until it has struck so often."""
    while held.struck < times:  # noqa: ASYNC110  # what strikes has nobody to tell
        await asyncio.sleep(0.001)


def carts(host: Host) -> Any:
    contract = next(each for each, owner in host.application.contracts.items() if owner == "cart")
    return host.stub(contract, "window")


def handlers(host: Host) -> dict[str, Callable[..., Any]]:
    return {name: entry.handler for name, entry in host.mesh.services.entries.items()}


async def ended(what: Awaitable[Any]) -> BaseException | None:
    try:
        await what
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("fault", [name for name, each in FAULTS.items() if each.where == "handler"])
async def test_handlers_are_as_before_when_it_is_over(host: Host, drilling: Drilling, fault: str) -> None:
    """While it is held the handler is another one, and afterwards it is the very one that it was, on the short way."""
    before, around = handlers(host), host.mesh.around
    await drilling.hold(order(fault, amount=1.0))
    assert handlers(host)["Carts.add"] is not before["Carts.add"]
    await drilling.end(f"drill-{fault}")
    assert handlers(host) == before
    assert host.mesh.around == around
    assert await ended(carts(host).add("a")) is None


async def test_it_ends_with_its_lease(host: Host, drilling: Drilling) -> None:
    """Nobody says it again: when its lease is over the fault is gone; said again in time, it stays."""
    clock = cast("ManualClock", host.clock)
    before = handlers(host)
    await drilling.hold(order("error", lease_s=4.0))
    await asyncio.sleep(0)
    clock.advance(3.0)
    await drilling.hold(order("error", lease_s=4.0))
    clock.advance(3.0)
    await asyncio.sleep(0)
    assert isinstance(await ended(carts(host).add("a")), InternalError)
    clock.advance(1.5)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not drilling.held
    assert handlers(host) == before
    assert await ended(carts(host).add("a")) is None


async def test_an_exception_is_raised_in_the_modules_own_code(
    host: Host, drilling: Drilling, caplog: pytest.LogCaptureFixture
) -> None:
    """The traceback of what is raised has the place in the handler where it first waits."""
    await drilling.hold(order("exception"))
    assert isinstance(await ended(carts(host).add("a")), InternalError)
    (record,) = [each for each in caplog.records if each.exc_info and "failed" in each.getMessage()]
    frames: list[str] = []
    trace = record.exc_info[2] if record.exc_info else None
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_qualname)
        trace = trace.tb_next
    assert "CartService.add" in frames


async def test_a_fault_of_the_contract_and_an_error_that_it_does_not_declare(host: Host, drilling: Drilling) -> None:
    """``fault`` ends calls in what the contract declares, ``error`` in what it does not."""
    await drilling.hold(order("fault"))
    assert isinstance(await ended(carts(host).add("a")), Fault)
    await drilling.end("drill-fault")
    await drilling.hold(order("error"))
    assert isinstance(await ended(carts(host).add("a")), InternalError)


async def test_an_empty_answer_leaves_out_the_work(host: Host, drilling: Drilling) -> None:
    """After the first answer the handler does not run: nothing more is written, and the answer is empty."""
    await drilling.hold(order("empty", method="Carts.add"))
    assert await carts(host).add("a") == []
    assert await carts(host).add("b") == []
    await drilling.end("drill-empty")
    assert await carts(host).add("c") == ["a", "c"]


async def test_only_the_method_that_is_meant_is_struck_and_only_its_share(host: Host, drilling: Drilling) -> None:
    """A method's drill leaves the others alone, and a share of one half strikes about one half."""
    before = handlers(host)
    await drilling.hold(order("error", method="Carts.full", share=0.5))
    assert handlers(host)["Carts.add"] is before["Carts.add"]
    outcomes = [type(await ended(carts(host).full())).__name__ for _ in range(200)]
    assert 60 < outcomes.count("InternalError") < 140
    assert outcomes.count("Full") == 200 - outcomes.count("InternalError")


async def test_memory_is_kept_and_given_back(host: Host, drilling: Drilling) -> None:
    """Each call keeps its share of memory, up to a limit; the end of the drill lets go of it."""
    await drilling.hold(order("leak", amount=0.5, method="Carts.full"))
    for _ in range(8):
        await ended(carts(host).full())
    held = only(drilling)
    assert sum(map(len, held.kept)) == 8 * 512 * 1024
    await drilling.end("drill-leak")
    assert not held.kept


async def test_statements_wait_inside_the_database(host: Host, drilling: Drilling) -> None:
    """Every statement of the module is struck while it is held, and none afterwards."""
    await carts(host).add("a")
    await drilling.hold(order("slow-sql", amount=1))
    await carts(host).add("b")
    held = only(drilling)
    before = held.struck
    assert before >= 2
    await drilling.end("drill-slow-sql")
    await carts(host).add("c")
    assert held.struck == before


async def test_the_writer_is_held_and_let_go(host: Host, drilling: Drilling) -> None:
    """While it is held a writer waits; when the drill ends, even in the middle, writers go on."""
    await drilling.hold(order("lock", amount=60_000))
    held = only(drilling)
    await struck(held, 1)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(carts(host).add("a"))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not waiting.done()
        await drilling.end("drill-lock")
    assert waiting.result() == ["a"]


async def test_events_that_cannot_be_handled(host: Host, drilling: Drilling) -> None:
    """A poisoned handler fails for the events on which the lot fell, and is the module's own again afterwards."""
    (handler,) = host.application.modules["window"].event_handlers
    function = handler.function
    await drilling.hold(order("poison", module="window"))
    assert handler.function is not function
    with pytest.raises(RuntimeError, match="cannot be handled"):
        await handler.function(object())
    await drilling.end("drill-poison")
    assert handler.function is function


async def test_background_work_ends_with_it(host: Host, drilling: Drilling) -> None:
    """Burning in the background is a task in the module's name, and gone when the drill is."""
    await drilling.hold(order("burn", amount=0.5))
    held = only(drilling)
    await struck(held, 2)
    await drilling.end("drill-burn")
    before = held.struck
    for _ in range(20):
        await asyncio.sleep(0)
    assert held.struck == before


@pytest.mark.parametrize(("fault", "module"), [("slow-sql", "idle"), ("poison", "cart")])
async def test_what_cannot_be_is_refused_and_leaves_nothing(
    host: Host, drilling: Drilling, fault: str, module: str
) -> None:
    """No slow statements without a database, no poison without handlers: it is said, and nothing is up."""
    before = handlers(host)
    with pytest.raises(SeamlineError):
        await drilling.hold(order(fault, module=module))
    assert not drilling.held
    assert handlers(host) == before


async def test_two_drills_at_once_and_one_that_ends(host: Host, drilling: Drilling) -> None:
    """Drills lie around each other; the end of one leaves the other up."""
    await drilling.hold(order("delay", amount=0.1))
    await drilling.hold(order("error"))
    await drilling.end("drill-delay")
    assert isinstance(await ended(carts(host).add("a")), InternalError)
    assert await drilling.ask("list", {}) == {"drills": [msgspec.to_builtins(order("error"))]}
    assert await drilling.ask("end", {"id": "drill-error"}) == {"ended": True}
    assert await drilling.ask("end", {"id": "drill-error"}) == {"ended": False}
    assert await ended(carts(host).add("a")) is None


async def test_scores_drift_and_nothing_else_does(drilling: Drilling) -> None:
    """Gauges that a module records of its model are shifted while it is held; nothing else, and nothing afterwards."""
    measured = [
        Measure("seamline.model.accuracy", 0.9, "cart"), Measure("seamline.model.accuracy", 0.8, "window"),
        Measure("seamline.model.calls", 5, "cart", "counter"), Measure("process.cpu.time", 1.0, "cart"),
    ]  # fmt: skip
    assert list(drilling.shifted(measured)) == measured
    await drilling.hold(order("drift", amount=0.25))
    assert [each.value for each in drilling.shifted(measured)] == [1.15, 0.8, 5, 1.0]
    assert only(drilling).struck == 1
    await drilling.end("drill-drift")
    assert list(drilling.shifted(measured)) == measured
