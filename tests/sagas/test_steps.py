"""Steps: what is journalled, tried again, undone, and done once."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select
from tests.sagas.rig import FAST, hosting, settings

from seamline.kernel.store import Database
from seamline.module import (
    Contract,
    Fault,
    InvalidArgument,
    Module,
    PermissionDenied,
    Unavailable,
    current,
)
from seamline.sagas import Saga, StepFailed


class SoldOut(Fault):
    """None is left."""

    sku: str


class Charge(Contract):
    async def charge(self, order: str, cents: int) -> str: ...
    async def refund(self, charge: str) -> None: ...
    async def reserve(self, sku: str) -> None: ...
    async def release(self, sku: str) -> None: ...


class Till(Charge):
    """A stand-in for another module that keeps its word about keys: what was done under one is not done again."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.keys: list[str | None] = []
        self.answers: dict[str, str] = {}
        self.fail: dict[str, list[Exception]] = {}

    async def _do(self, what: str, answer: str = "") -> str:
        context = current()
        key = context.key_for_calls if context is not None else None
        self.keys.append(key)
        errors = self.fail.get(what.partition(" ")[0])
        error = errors.pop(0) if errors else None
        if isinstance(error, Fault) or (isinstance(error, Unavailable) and not error.started):
            raise error
        if key not in self.answers:
            self.calls.append(what)
            self.answers[key or ""] = answer
        await asyncio.sleep(0)
        if error is not None:
            raise error
        return self.answers[key or ""]

    async def charge(self, order: str, cents: int) -> str:
        return await self._do(f"charge {cents}", f"c{cents}")

    async def refund(self, charge: str) -> None:
        await self._do(f"refund {charge}")

    async def reserve(self, sku: str) -> None:
        await self._do(f"reserve {sku}")

    async def release(self, sku: str) -> None:
        await self._do(f"release {sku}")


@dataclass
class Basket:
    sku: str
    cents: int


shop = Module("shop")


@shop.saga
async def buy(s: Saga, basket: Basket, till: Charge) -> str:
    await s.step(till.reserve, basket.sku, undo=till.release)
    charge = await s.step(till.charge, s.id, basket.cents, undo=lambda charge: till.refund(f"{charge}"))
    await s.step(ship, basket.sku)
    return charge


shipped: list[str] = []
ship_errors: list[Exception] = []


async def ship(sku: str) -> None:
    if ship_errors:
        raise ship_errors.pop(0)
    shipped.append(sku)


@pytest.fixture(autouse=True)
def nothing_shipped():
    shipped.clear()
    ship_errors.clear()


def unavailable(*, started: bool) -> Unavailable:
    error = Unavailable("gone")
    error.started = started
    return error


async def test_a_saga_runs_its_steps_and_gives_its_result(db: Database):
    """Each call carries the saga's id and the place as its key."""
    till = Till()
    async with hosting(shop, db, stubs={Charge: till}) as host:
        handle = await host.sagas.start(buy, Basket("mug", 5))
        assert await handle.result() == "c5"
        assert (await handle.status()).status == "succeeded"
    assert till.calls == ["reserve mug", "charge 5"]
    assert till.keys == [f"{handle.id}:1", f"{handle.id}:2"]
    assert shipped == ["mug"]


async def test_a_fault_undoes_what_was_done_in_reverse(db: Database):
    """And whoever waits for the saga gets the fault itself."""
    till = Till()
    ship_errors.append(SoldOut(sku="mug"))
    async with hosting(shop, db, stubs={Charge: till}) as host:
        handle = await host.sagas.start(buy, Basket("mug", 5))
        with pytest.raises(SoldOut) as caught:
            await handle.result()
        assert caught.value == SoldOut(sku="mug")
        assert (await handle.status()).status == "failed"
        with pytest.raises(SoldOut):  # and again, from the journal
            await host.sagas.handle(handle.id).result()
    assert till.calls == ["reserve mug", "charge 5", "refund c5", "release mug"]
    assert till.keys[2:] == [f"{handle.id}:2:undo", f"{handle.id}:1:undo"]


async def test_a_call_that_may_not_have_arrived_is_made_again_under_the_same_key(db: Database):
    """The callee, which knows the key, does it once."""
    till = Till()
    till.fail["charge"] = [unavailable(started=False), unavailable(started=True)]
    async with hosting(shop, db, stubs={Charge: till}) as host:
        assert await host.sagas.run(buy, Basket("mug", 5)) == "c5"
    assert till.calls == ["reserve mug", "charge 5"]
    assert len(set(till.keys[1:])) == 1
    assert len(till.keys) == 4


@pytest.mark.parametrize("error", [PermissionDenied("no"), InvalidArgument("no")])
async def test_what_failed_for_good_is_not_tried_again(db: Database, error: Exception):
    """The saga is undone at once."""
    till = Till()
    till.fail["charge"] = [error]
    async with hosting(shop, db, stubs={Charge: till}) as host:
        with pytest.raises(type(error)):
            await host.sagas.run(buy, Basket("mug", 5))
    assert till.calls == ["reserve mug", "charge 5", "release mug"]


async def test_an_unknown_outcome_is_settled_before_it_is_undone(db: Database):
    """Every answer of the charge was lost: it is asked for under its key, and what it did is taken back."""
    till = Till()
    till.fail["charge"] = [unavailable(started=True)] * FAST.step_attempts
    async with hosting(shop, db, stubs={Charge: till}) as host:
        with pytest.raises(Unavailable):
            await host.sagas.run(buy, Basket("mug", 5))
    assert till.calls == ["reserve mug", "charge 5", "refund c5", "release mug"]


async def test_a_step_that_certainly_did_not_happen_is_not_undone(db: Database):
    """None of its attempts was begun."""
    till = Till()
    till.fail["charge"] = [unavailable(started=False)] * FAST.step_attempts
    async with hosting(shop, db, stubs={Charge: till}) as host:
        with pytest.raises(Unavailable):
            await host.sagas.run(buy, Basket("mug", 5))
    assert till.calls == ["reserve mug", "release mug"]


async def test_an_error_of_a_function_is_tried_again_and_then_fails_the_step(db: Database):
    """It arrives as StepFailed, with what was raised."""
    till = Till()
    ship_errors.extend([ValueError("broken lorry")] * FAST.step_attempts)
    async with hosting(shop, db, stubs={Charge: till}) as host:
        with pytest.raises(StepFailed, match="broken lorry"):
            await host.sagas.run(buy, Basket("mug", 5))
    assert not ship_errors
    assert till.calls[-2:] == ["refund c5", "release mug"]


ledger = MetaData()
entries = Table("entries", ledger, Column("id", Integer, primary_key=True), Column("text", String))
books = Module("shop", tables=ledger)


async def write_down(db: Database, text: str) -> int:
    async with db.transaction() as tx:
        await tx.execute(insert(entries).values(text=text))
    async with db.transaction() as tx:
        return len((await tx.execute(select(entries))).all())


@books.saga
async def keep_books(s: Saga, db: Database, times: int) -> int:
    count = 0
    for n in range(times):
        count = await s.step(write_down_in(db), f"line {n}", name=f"line {n}")
    return count


def write_down_in(db: Database):
    async def line(text: str) -> int:
        return await write_down(db, text)

    return line


async def test_what_a_local_step_writes_commits_with_its_entry(db: Database):
    """Two transactions of a step and its journal entry are one commit."""
    await db.ensure(ledger)
    async with hosting(books, db) as host:
        handle = await host.sagas.start(keep_books, 3)
        assert await handle.result() == 3
        found = await host.engine.journal.entries([handle.id])
        assert len(found[handle.id]) == 3


@books.saga
async def fail_after_writing(s: Saga, db: Database) -> None:
    async def write_and_fail() -> None:
        await write_down(db, "never")
        raise SoldOut(sku="ink")

    await s.step(write_and_fail)


async def test_what_a_failing_local_step_wrote_is_not_kept(db: Database):
    """The fault is journalled, its writes are not there."""
    await db.ensure(ledger)
    async with hosting(books, db) as host:
        with pytest.raises(SoldOut):
            await host.sagas.run(fail_after_writing)
        async with db.read() as r:
            assert (await r.execute(select(entries))).all() == []


plain = Module("shop")
threads: list[str] = []


def blocking(n: int) -> int:
    threads.append(threading.current_thread().name)
    return n * 2


@plain.saga
async def off_the_loop(s: Saga, n: int) -> int:
    return await s.step(blocking, n)


async def test_a_plain_function_runs_off_the_loop(db: Database):
    """In a thread that is not the event loop's."""
    threads.clear()
    async with hosting(plain, db) as host:
        assert await host.sagas.run(off_the_loop, 4) == 8
    assert threads
    assert threads[0] != threading.current_thread().name


together = Module("shop")
order: list[str] = []


async def slow(n: int) -> int:
    await asyncio.sleep(0.01 * (3 - n))
    order.append(f"done {n}")
    return n


async def unslow(n: int) -> None:
    order.append(f"undone {n}")


async def never(n: int) -> int:
    raise SoldOut(sku=str(n))


@together.saga
async def at_once(s: Saga, fail: bool) -> list[int]:
    steps = [s.step(slow, n, undo=unslow) for n in range(3)]
    if fail:
        return await s.gather(*steps, s.step(never, 3))
    return await s.gather(*steps)


async def branch(s: Saga, n: int) -> int:
    first = await s.step(slow, n, undo=unslow)
    return first + await s.step(slow, n, undo=unslow)


@together.saga
async def branches(s: Saga) -> list[int]:
    return list(await asyncio.gather(branch(s, 0), branch(s, 1), branch(s, 2)))


async def test_steps_run_at_once(db: Database):
    """The quicker ones are done first; the results come in the order asked for."""
    order.clear()
    async with hosting(together, db) as host:
        assert await host.sagas.run(at_once, False) == [0, 1, 2]
        assert order == ["done 2", "done 1", "done 0"]


async def test_when_one_of_many_fails_the_others_are_awaited_and_undone(db: Database):
    """In the reverse of the order in which they were done."""
    order.clear()
    async with hosting(together, db) as host:
        with pytest.raises(SoldOut):
            await host.sagas.run(at_once, True)
    assert order == ["done 2", "done 1", "done 0", "undone 0", "undone 1", "undone 2"]


async def test_branches_of_plain_asyncio_keep_their_places(db: Database):
    """Each branch counts its own steps, whichever is quicker."""
    order.clear()
    async with hosting(together, db) as host:
        assert await host.sagas.run(branches) == [0, 2, 4]


@together.saga
async def group(s: Saga) -> list[str]:
    heard: list[str] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(branch(s, 0))
            tasks.create_task(fails_at_once(s))
    except* SoldOut:
        heard.append("sold out")
    await s.step(unslow, 7)
    return heard


async def fails_at_once(s: Saga) -> None:
    await s.step(never, 3)


async def test_a_step_that_a_task_group_gives_up_is_settled_and_undone(db: Database):
    """Whether it was done is not known: it is asked for, and taken back, though the saga itself succeeds."""
    order.clear()
    async with hosting(together, db) as host:
        handle = await host.sagas.start(group)
        assert await handle.result(20) == ["sold out"]
        found = await host.runtime.admin("show", {"id": handle.id})
        assert [each["outcome"] for each in found["journal"]] == ["fault", "left", "ok", "ok"]
    assert order == ["undone 7", "done 0", "undone 0"]


async def test_a_key_starts_one_saga(db: Database):
    """Sixteen starts at once, and one afterwards: one saga, one result."""
    till = Till()
    async with hosting(shop, db, stubs={Charge: till}) as host:
        got = await asyncio.gather(*(host.sagas.run(buy, Basket("mug", 5), key="order-1") for _ in range(16)))
        assert await host.sagas.run(buy, Basket("mug", 5), key="order-1") == "c5"
        assert got == ["c5"] * 16
    assert till.calls == ["reserve mug", "charge 5"]


async def test_a_start_in_a_transaction_is_atomic_with_it(db: Database):
    """Rolled back: never begun. Committed: it runs."""
    till = Till()
    async with hosting(shop, db, stubs={Charge: till}) as host:
        with pytest.raises(ZeroDivisionError):
            async with db.transaction():
                await host.sagas.start(buy, Basket("cup", 1))
                raise ZeroDivisionError
        async with db.transaction():
            handle = await host.sagas.start(buy, Basket("mug", 5))
            assert not till.calls
        assert await handle.result() == "c5"
    assert till.calls == ["reserve mug", "charge 5"]


async def test_more_sagas_than_may_run_wait_their_turn(db: Database):
    """All of them end; never more run at once than the settings allow."""
    till = Till()
    busiest = 0

    async with hosting(shop, db, stubs={Charge: till}, settings=settings(running_max=4)) as host:

        async def one(n: int) -> str:
            nonlocal busiest
            handle = await host.sagas.start(buy, Basket("mug", n))
            busiest = max(busiest, len(host.engine.running))
            return await handle.result()

        assert sorted(await asyncio.gather(*(one(n) for n in range(30)))) == sorted(f"c{n}" for n in range(30))
    assert busiest <= 4
