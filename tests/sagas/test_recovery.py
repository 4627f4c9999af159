"""After a crash, a pause, a release: a saga goes on where it was, in one place, or says why it does not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.sagas.rig import Host, hosting, later, settings, until

from seamline.kernel.clock import ManualClock
from seamline.kernel.store import Database
from seamline.module import Fault, Module, Unavailable
from seamline.sagas import Saga, SagaBusyError, SagaMismatchError
from seamline.sagas.errors import NewerJournalError

done: list[str] = []
gates: dict[str, asyncio.Event] = {}
errors: dict[str, list[Exception]] = {}


class NoRoom(Fault):
    """The van is full."""

    van: str


@pytest.fixture(autouse=True)
def begin_anew():
    done.clear()
    gates.clear()
    errors.clear()


async def do(what: str) -> str:
    if what in gates:
        await gates[what].wait()
    waiting = errors.get(what)
    if waiting:
        raise waiting.pop(0)
    done.append(what)
    return what


async def undo(what: str) -> None:
    await do(f"not {what}")


def module_of(*sagas: Callable[..., Any], **options: Any) -> Module:
    module = Module("shop")
    for saga in sagas:
        module.saga(**options)(saga)
    return module


async def three(s: Saga, name: str) -> str:
    first = await s.step(do, f"{name}1", undo=undo)
    second = await s.step(do, f"{name}2", undo=undo)
    return first + second + await s.step(do, f"{name}3", undo=undo)


async def taken_over(clock: ManualClock, host: Host) -> None:
    """Let another worker see that the one before is not heard of."""
    await later(clock, 5)


@pytest.mark.parametrize("at", ["x1", "x2", "x3"])
async def test_a_saga_goes_on_where_its_process_died(db: Database, at: str):
    """What was journalled is not done again; the step under way is."""
    clock = ManualClock()
    gates[at] = asyncio.Event()
    host = await Host(module_of(three), db, clock).start()
    handle = await host.sagas.start(three, "x")
    before = ["x1", "x2", "x3"][: int(at[1]) - 1]
    await until(lambda: done == before and host.engine.running)
    await settle_in(host)
    await host.crash()
    gates[at].set()
    async with hosting(module_of(three), db, clock, owner="elsewhere/2/2") as other:
        await taken_over(clock, other)
        assert await other.sagas.handle(handle.id).result(20) == "x1x2x3"
    assert done == ["x1", "x2", "x3"]


async def settle_in(host: Host) -> None:
    """Until what was done is on disk."""
    await until(lambda: all(course.busy == 1 and course.pen.idle for course in host.engine.running.values()))
    await asyncio.sleep(0.02)


async def test_a_process_that_ends_in_order_gives_its_sagas_back_at_once(db: Database):
    """Another takes them up without waiting for a lease: no clock is moved."""
    clock = ManualClock()
    gates["x2"] = asyncio.Event()
    async with hosting(module_of(three), db, clock, owner="elsewhere/2/2") as other:
        host = Host(module_of(three), db, clock, announce=lambda _: other.engine.wake())
        await host.start()
        handle = await host.sagas.start(three, "x")
        await until(lambda: done == ["x1"])
        draining = asyncio.get_running_loop().create_task(host.stop())
        await asyncio.sleep(0.05)
        assert done == ["x1"]  # the step under way is finished, and nothing else is begun there
        gates["x2"].set()
        await draining
        assert await other.sagas.handle(handle.id).result(20) == "x1x2x3"
    assert done == ["x1", "x2", "x3"]


async def test_a_paused_worker_cannot_write_after_its_lease_was_taken(db: Database):
    """Its saga went on elsewhere; the result of its late step is refused, and its own run of the saga ends."""
    clock, frozen = ManualClock(), ManualClock()
    gates["x2"] = asyncio.Event()
    host = await Host(module_of(three), db, frozen).start()
    handle = await host.sagas.start(three, "x")
    await until(lambda: done == ["x1"])
    await settle_in(host)
    paused = host.engine.running[handle.id]
    async with hosting(module_of(three), db, clock, owner="elsewhere/2/2") as other:
        await taken_over(clock, other)
        await until(lambda: handle.id in other.engine.running)
        late, gates["x2"] = gates["x2"], asyncio.Event()
        late.set()  # the paused worker's step ends now
        await until(lambda: paused.lost)
        assert not host.engine.running
        gates["x2"].set()
        assert await other.sagas.handle(handle.id).result(20) == "x1x2x3"
        assert await handle.result(20) == "x1x2x3"  # also for who asked the paused one
        found = (await other.engine.journal.entries([handle.id]))[handle.id]
        assert len(found) == 3
    await host.stop()


async def test_a_worker_that_lost_its_place_registers_again(db: Database):
    """And runs new sagas."""
    clock = ManualClock()
    host = await Host(module_of(three), db, clock).start()
    first = host.engine.owner
    await host.engine.journal.take_over(first)
    await later(clock, 1)
    assert host.engine.owner != first
    assert await host.sagas.run(three, "y") == "y1y2y3"
    await host.stop()


async def test_two_engines_on_one_store_run_each_saga_in_one_place(db: Database):
    """A hundred sagas, started on both: each step is done once."""
    async with (
        hosting(module_of(three), db, owner="elsewhere/1/1", settings=settings(running_max=5)) as one,
        hosting(module_of(three), db, owner="elsewhere/2/2", settings=settings(running_max=5)) as two,
    ):
        handles = await asyncio.gather(*((one, two)[n % 2].sagas.start(three, f"s{n}-") for n in range(100)))
        await asyncio.gather(*((one, two)[n % 2].sagas.handle(h.id).result(60) for n, h in enumerate(handles)))
        assert one.engine.counts["taken_up"] + two.engine.counts["taken_up"] > 0
    assert sorted(done) == sorted(f"s{n}-{place}" for n in range(100) for place in (1, 2, 3))


async def branches(s: Saga) -> list[str]:
    async def branch(name: str) -> str:
        first = await s.step(do, f"{name}1")
        return first + await s.step(do, f"{name}2")

    found = await asyncio.gather(branch("a"), branch("b"), s.step(do, "c"))
    await s.step(do, "end")
    return list(found)


async def test_branches_replay_in_the_order_in_which_they_happened(db: Database):
    """One branch was far ahead of the other when the process died, between two of their steps."""
    clock = ManualClock()
    for name in ("a1", "end"):
        gates[name] = asyncio.Event()
    host = await Host(module_of(branches), db, clock).start()
    handle = await host.sagas.start(branches)
    await until(lambda: len(done) == 3)
    assert sorted(done) == ["b1", "b2", "c"]
    gates["a1"].set()
    await until(lambda: len(done) == 5)
    await settle_in(host)
    await host.crash()
    gates["end"].set()
    async with hosting(module_of(branches), db, clock, owner="elsewhere/2/2") as other:
        await taken_over(clock, other)
        assert await other.sagas.handle(handle.id).result(20) == ["a1a2", "b1b2", "c"]
    assert len(done) == 6


async def failing(s: Saga, name: str) -> None:
    await s.step(do, f"{name}1", undo=undo)
    await s.step(do, f"{name}2", undo=undo)
    await s.step(do, f"{name}3", undo=undo)
    raise NoRoom(van=name)


@pytest.mark.parametrize("at", ["not x3", "not x2", "not x1"])
async def test_undoing_goes_on_where_its_process_died(db: Database, at: str):
    """What was undone is not undone again."""
    clock = ManualClock()
    gates[at] = asyncio.Event()
    host = await Host(module_of(failing), db, clock).start()
    handle = await host.sagas.start(failing, "x")
    await until(lambda: host.engine.running and f"x{min(int(at[-1]) + 1, 3)}" in done[-1:][0] if done else False)
    await settle_in(host)
    assert (await handle.status()).status == "undoing"
    await host.crash()
    gates[at].set()
    async with hosting(module_of(failing), db, clock, owner="elsewhere/2/2") as other:
        await taken_over(clock, other)
        with pytest.raises(NoRoom):
            await other.sagas.handle(handle.id).result(20)
    assert done == ["x1", "x2", "x3", "not x3", "not x2", "not x1"]


async def test_a_compensation_that_keeps_failing_is_stuck_and_seen_and_tried_again(db: Database):
    """The others are undone meanwhile; it ends when the cause is gone."""
    clock = ManualClock()
    errors["not x2"] = [ValueError("bank closed")] * 1000
    async with hosting(module_of(failing), db, clock) as host:
        handle = await host.sagas.start(failing, "x")
        await pass_time(clock, lambda: "not x1" in done)

        async def stuck() -> bool:
            return (await handle.status()).status == "stuck"

        await until(stuck)
        info = await handle.status()
        assert "bank closed" in info.stuck
        assert not host.engine.running
        errors.clear()
        clock.advance(60)
        with pytest.raises(NoRoom):
            await handle.result(20)
    assert done == ["x1", "x2", "x3", "not x3", "not x1", "not x2"]


async def pass_time(clock: ManualClock, condition: Callable[[], Any], step_s: float = 0.25) -> None:
    """Time passes until something is so."""
    async with asyncio.timeout(20):
        while not condition():
            await later(clock, step_s, step_s)


async def changed(s: Saga, name: str) -> str:
    await s.step(do, f"{name}1", undo=undo)
    await s.step(do, f"{name}other", undo=undo, name="another")
    return "changed"


changed.__name__ = "three"


async def renamed_argument(s: Saga, name: str) -> str:
    return await s.step(do, f"{name}ONE", undo=undo)


async def shorter(s: Saga, name: str) -> str:
    return await s.step(do, f"{name}1", undo=undo)


async def patched(s: Saga, name: str) -> str:
    await s.step(do, f"{name}1", undo=undo)
    if s.patched("no second"):
        return "patched"
    second = await s.step(do, f"{name}2", undo=undo)
    return second + await s.step(do, f"{name}3", undo=undo)


async def interrupted(db: Database, clock: ManualClock, at: str) -> str:
    """A saga whose process died in the step ``at``; its id."""
    gates[at] = asyncio.Event()
    host = await Host(module_of(three), db, clock).start()
    handle = await host.sagas.start(three, "x")
    await until(lambda: len(done) == int(at[1]) - 1)
    await settle_in(host)
    await host.crash()
    gates.clear()
    return handle.id


@pytest.mark.parametrize(
    ("new", "at", "says"),
    [
        (changed, "x3", r"place 2: its journal has step 'do', its code has step 'another'"),
        (changed, "x2", r"place 2: its journal has 'do', its code has 'another'"),
        (renamed_argument, "x3", r"place 1: its journal has do.*x1.*its code has do.*xONE"),
        (shorter, "x3", r"place 2: its journal has step 'do', its code has its end"),
        (shorter, "x2", r"place 2: its journal has 'do' under way, its code has its end"),
    ],
)
async def test_code_that_does_not_do_what_the_journal_says_is_stuck(
    db: Database, new: Callable[..., Any], at: str, says: str
):
    """The error names the saga, the place, both sides and the remedy; the code it began with finishes it."""
    clock = ManualClock()
    saga = await interrupted(db, clock, at)
    async with hosting(module_of(new, name="three"), db, clock, owner="elsewhere/2/2") as other:
        await taken_over(clock, other)
        handle = other.sagas.handle(saga)

        async def stuck() -> bool:
            return (await handle.status()).status == "stuck"

        await until(stuck)
        info = await handle.status()
        assert info.stuck.startswith(SagaMismatchError.code)
        assert re.search(says, info.stuck), info.stuck
        assert saga in info.stuck
        assert "s.patched" in info.stuck
        assert [each for each in done if each.startswith("not")] == []
    async with hosting(module_of(three), db, clock, owner="elsewhere/3/3") as fixed:
        assert saga not in fixed.engine.running  # a person decides
        await fixed.runtime.admin("retry", {"id": saga})
        assert await fixed.sagas.handle(saga).result(20) == "x1x2x3"
    assert done == ["x1", "x2", "x3"]


async def test_a_patch_is_taken_by_new_sagas_only(db: Database):
    """A saga that was past the place, or may have begun what comes after it, stays on its old course."""
    clock = ManualClock()
    saga = await interrupted(db, clock, "x2")
    async with hosting(module_of(patched, name="three"), db, clock, owner="elsewhere/2/2") as other:
        await taken_over(clock, other)
        assert await other.sagas.handle(saga).result(20) == "x2x3"
        assert await other.sagas.run(patched, "y") == "patched"


async def test_a_saga_of_a_newer_version_waits_for_a_worker_that_knows_it(db: Database):
    """And its status says so."""
    clock = ManualClock()
    gates["x1"] = asyncio.Event()
    new = await Host(module_of(three, version=3), db, clock).start()
    handle = await new.sagas.start(three, "x")
    await settle_in(new)
    await new.crash()
    gates.clear()
    async with hosting(module_of(three, version=2), db, clock, owner="elsewhere/2/2") as old:
        await taken_over(clock, old)
        info = await old.sagas.handle(handle.id).status()
        assert info.waiting == ("a process that knows 'three' in version 3",)
        assert info.status == "running"
        assert not old.engine.running
    async with hosting(module_of(three, version=4), db, clock, owner="elsewhere/3/3") as newer:
        assert await newer.sagas.handle(handle.id).result(20) == "x1x2x3"


async def test_a_journal_of_a_newer_release_is_not_touched(db: Database):
    """The start fails with what to do; the saga is as it was."""
    clock = ManualClock()
    saga = await interrupted(db, clock, "x2")
    async with db.transaction() as tx:
        await tx.exec_driver_sql("UPDATE seamline_saga_format SET format = 99")
    old = Host(module_of(three), db, clock, owner="elsewhere/2/2")
    with pytest.raises(NewerJournalError, match="format 99"):
        await old.start()
    async with db.transaction() as tx:
        await tx.exec_driver_sql("UPDATE seamline_saga_format SET format = 1")
    async with hosting(module_of(three), db, clock, owner="elsewhere/3/3") as right:
        await taken_over(clock, right)
        assert await right.sagas.handle(saga).result(20) == "x1x2x3"


async def test_a_newer_release_that_comes_while_sagas_run_stops_them_here(db: Database):
    """What runs is given up without a write, new ones are refused with the reason, and the newer release goes on."""
    clock = ManualClock()
    gates["x2"] = asyncio.Event()
    host = await Host(module_of(three), db, clock).start()
    handle = await host.sagas.start(three, "x")
    await until(lambda: done == ["x1"])
    await settle_in(host)
    async with db.transaction() as tx:
        await tx.exec_driver_sql("UPDATE seamline_saga_format SET format = 99")
    await pass_time(clock, lambda: not host.engine.running)
    gates["x2"].set()
    with pytest.raises(SagaBusyError, match="format 99"):
        await host.sagas.start(three, "y")
    await host.stop()
    assert len((await host.engine.journal.entries([handle.id]))[handle.id]) == 1
    async with db.transaction() as tx:  # as if this release were the newer one
        await tx.exec_driver_sql("UPDATE seamline_saga_format SET format = 1")
    async with hosting(module_of(three), db, clock, owner="elsewhere/2/2") as newer:
        await taken_over(clock, newer)
        assert await newer.sagas.handle(handle.id).result(20) == "x1x2x3"


async def test_a_saga_of_a_type_that_is_gone_waits_for_a_worker_that_knows_it(db: Database):
    """A release without it leaves it as it is, and says whom it waits for."""
    clock = ManualClock()
    saga = await interrupted(db, clock, "x2")
    async with hosting(module_of(branches), db, clock, owner="elsewhere/2/2") as without:
        await taken_over(clock, without)
        (row,) = await without.runtime.admin("list", {"status": "active"})
        assert row["waiting"] == ("a process that knows 'three' in version 1",)
        assert (row["id"], row["status"]) == (saga, "running")
        assert not without.engine.running
    async with hosting(module_of(three), db, clock, owner="elsewhere/3/3") as right:
        assert await right.sagas.handle(saga).result(20) == "x1x2x3"
    assert done == ["x1", "x2", "x3"]


@pytest.mark.parametrize("compensate", ["reverse", "parallel"])
async def test_compensations_run_one_after_another_or_all_at_once(db: Database, compensate: str):
    """As the saga asks for: the last one is held up, and the others wait for it or do not."""
    gates["not x3"] = asyncio.Event()
    async with hosting(module_of(failing, compensate=compensate), db) as host:
        handle = await host.sagas.start(failing, "x")
        if compensate == "parallel":
            await until(lambda: {"not x1", "not x2"} <= set(done))
        else:
            await until(lambda: done == ["x1", "x2", "x3"])
            await settle_in(host)
            assert done == ["x1", "x2", "x3"]
        gates["not x3"].set()
        with pytest.raises(NoRoom):
            await handle.result(20)
    assert sorted(done) == ["not x1", "not x2", "not x3", "x1", "x2", "x3"]


DAMAGE = {
    "a flipped bit": "UPDATE seamline_saga_journal SET entry = REPLACE(entry, 'x1', 'y1')",
    "no JSON": "UPDATE seamline_saga_journal SET entry = '{'",
    "a bad checksum": "UPDATE seamline_saga_journal SET crc = crc + 1",
    "a changed input": "UPDATE seamline_sagas SET input = REPLACE(input, 'x', 'y')",
    "an input that is no JSON": "UPDATE seamline_sagas SET input = '{'",
    "what it was doing": "UPDATE seamline_sagas SET work = '{'",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
async def test_a_damaged_journal_is_named_and_left_as_it_is(db: Database, damage: str):
    """The saga is stuck; others go on."""
    clock = ManualClock()
    saga = await interrupted(db, clock, "x2")
    async with db.transaction() as tx:
        await tx.exec_driver_sql(damage)
    async with hosting(module_of(three), db, clock, owner="elsewhere/2/2") as host:
        await taken_over(clock, host)

        async def stuck() -> bool:
            return (await host.sagas.handle(saga).status()).status == "stuck"

        await until(stuck)
        assert "SL7304" in (await host.sagas.handle(saga).status()).stuck
        assert await host.sagas.run(three, "z") == "z1z2z3"
        shown = await host.runtime.admin("show", {"id": saga})
        assert shown["status"] == "stuck"
        listed = await host.runtime.admin("list", {"status": "stuck"})
        assert [row["id"] for row in listed] == [saga]
    assert "x2" not in done


async def past_return(s: Saga) -> str:
    await s.step(do, "hold", undo=undo)
    s.pivot()
    await s.step(do, "ship")
    return await s.step(do, "mail")


async def test_past_the_point_of_no_return_steps_are_tried_until_they_succeed(db: Database):
    """Nothing is undone: neither failures nor a fault that nobody catches make it give up."""
    clock = ManualClock()
    errors["ship"] = [Unavailable("gone")] * 12
    errors["mail"] = [NoRoom(van="1"), NoRoom(van="2")]
    async with hosting(module_of(past_return), db, clock) as host:
        handle = await host.sagas.start(past_return)
        await pass_time(clock, lambda: "mail" in done)
        assert await handle.result(20) == "mail"
    assert done == ["hold", "ship", "mail"]


async def test_a_step_that_keeps_failing_leaves_memory_between_its_attempts(db: Database):
    """A thousand of them do not keep others from running; its attempts are counted on."""
    clock = ManualClock()
    errors["ship"] = [Unavailable("gone")] * 12
    async with hosting(module_of(past_return), db, clock, settings=settings(step_backoff_s=1.0)) as host:
        handle = await host.sagas.start(past_return)
        await pass_time(clock, lambda: len(errors["ship"]) < 9)
        await until(lambda: not host.engine.running)
        info = await handle.status()
        assert "attempts" in info.trouble[0]
        await pass_time(clock, lambda: "mail" in done, 10.0)
        assert await handle.result(20) == "mail"
        shown = await host.runtime.admin("show", {"id": handle.id})
        assert [each["attempts"] for each in shown["journal"]] == [1, 13, 1]
