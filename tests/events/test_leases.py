"""Leases: shared fairly, never by two at once, and refused to those who are late."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from tests.events.lease_child import NAME, PARTITIONS, Member
from tests.events.log_rig import Place, eventually, place

from seamline.events.errors import LostLeaseError
from seamline.events.fences import check
from seamline.events.leases import Leases
from seamline.events.shares import Lease, Share, make_plan
from seamline.events.transport import Fence
from seamline.kernel.clock import ManualClock
from seamline.kernel.owner import process_owner
from seamline.kernel.store import Database

__all__ = ["place"]  # fixture

ELSEWHERE = "process@another-machine/0/0:17:99"


@pytest.fixture(autouse=True)
def heartbeats_by_hand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where a test says so do members of this process act by themselves."""

    async def wait(_: Leases) -> None:
        await asyncio.get_running_loop().create_future()

    if "by_themselves" not in request.node.name:
        monkeypatch.setattr(Leases, "_keep", wait)


@asynccontextmanager
async def member(place: Place, clock: ManualClock, owner: str = "") -> AsyncGenerator[tuple[Database, Leases]]:
    """A process as others see it; it is not asked whether it lives if it says that it is of another machine."""
    async with Database(place.url, place.module) as database:
        leases = Leases(database, owner or ELSEWHERE, clock)
        yield database, leases
        await leases.close()


async def test_partitions_are_shared_fairly_as_members_come_and_go(place: Place):
    """One has all; a second gets half once the first had time to end its work; who leaves gives back at once."""
    clock = ManualClock()
    async with member(place, clock) as (_, a), member(place, clock) as (_, b), member(place, clock) as (_, c):
        first = await a.join(NAME, 10)
        assert sorted(first.held()) == list(range(10))
        second = await b.join(NAME, 10)
        await until_shared([a, b], [first, second], [5, 5])
        third = await c.join(NAME, 10)
        await until_shared([a, b, c], [first, second, third], [3, 3, 4])
        await second.close()
        assert second.held() == {}
        await until_shared([a, c], [first, third], [5, 5])


async def until_shared(members: list[Leases], shares: list[Share], counts: list[int]) -> None:
    """After a few heartbeats each has its part, and no partition has two holders at any time."""
    for _ in range(6):
        for each in members:
            await each.beat()
            held = [partition for share in shares for partition in share.held()]
            assert len(held) == len(set(held))
    assert sorted(len(share.held()) for share in shares) == sorted(counts)
    assert sum(counts) == sum(len(share.held()) for share in shares)


async def test_what_goes_to_another_is_announced_one_heartbeat_before(place: Place):
    """It is not handed out any more, while work under way may still commit; then another has it, with a higher epoch,
    and what is late is refused."""
    clock = ManualClock()
    async with member(place, clock) as (database, a), member(place, clock) as (_, b):
        first = await a.join(NAME, 2)
        fences = {partition: Fence(f"{NAME}/{partition}", epoch) for partition, epoch in first.held().items()}
        second = await b.join(NAME, 2)
        first.changed.clear()
        await a.beat()
        assert first.changed.is_set()
        leaving = ({0, 1} - set(first.held())).pop()
        async with database.transaction() as tx:
            await check(tx, fences[leaving])
        await a.beat()
        await b.beat()
        assert second.held()[leaving] > fences[leaving].epoch
        with pytest.raises(LostLeaseError, match=f"{NAME}/{leaving}"):
            async with database.transaction() as tx:
                await check(tx, fences[leaving])


async def test_one_partition_stays_with_who_has_it(place: Place):
    """A relay or a timer has one partition: a newcomer does not take it from a member that lives."""
    clock = ManualClock()
    async with member(place, clock) as (_, a), member(place, clock) as (_, b), member(place, clock) as (_, c):
        share = await a.join(NAME, 1)
        held = dict(share.held())
        await b.join(NAME, 1)
        await c.join(NAME, 1)
        for _ in range(3):
            for each in (a, b, c):
                await each.beat()
        assert share.held() == held


async def test_a_member_of_another_machine_is_lost_after_its_time(place: Place):
    """It shows no sign of life: not a moment too early, whatever the wall clocks say, its partitions go to another
    with a higher epoch, and it knows itself by its own clock."""
    theirs, ours = ManualClock(), ManualClock()
    async with member(place, theirs) as (their_database, a), member(place, ours) as (_, b):
        first = await a.join(NAME, 4)
        fence = first.fence(0)
        assert fence is not None
        second = await b.join(NAME, 4)
        ours.advance(2.9)
        await b.beat()
        assert second.held() == {}
        assert len(first.held()) == 4
        ours.advance(0.2)
        theirs.advance(3.0)
        assert first.held() == {}
        await b.beat()
        assert sorted(second.held()) == [0, 1, 2, 3]
        with pytest.raises(LostLeaseError):
            async with their_database.transaction() as tx:
                await check(tx, fence)
        first.changed.clear()
        await a.beat()  # it comes back
        assert first.changed.is_set()
        await until_shared([b, a], [first, second], [2, 2])


async def test_a_member_of_this_machine_that_has_ended_is_seen_at_once(place: Place):
    """No time has to pass where the machine can be asked."""
    clock = ManualClock()
    gone = process_owner("gone").rpartition(":")[0] + ":1"  # this pid, but it began at another time
    async with member(place, clock, gone) as (_, a), member(place, clock, process_owner("here")) as (_, b):
        await a.join(NAME, 4)
        second = await b.join(NAME, 4)
        assert len(second.held()) == 4


async def test_a_pause_of_the_observer_condemns_nobody(place: Place):
    """Who was paused himself has not heard of others for long, and does not take their partitions for that."""
    ours, theirs = ManualClock(), ManualClock()
    async with member(place, theirs) as (_, a), member(place, ours) as (_, b):
        first = await a.join(NAME, 4)
        second = await b.join(NAME, 4)
        await until_shared([a, b], [first, second], [2, 2])
        ours.advance(1_000)
        await b.beat()
        assert len(second.held()) == 2
        assert len(first.held()) == 2


async def test_names_are_shared_one_by_one(place: Place):
    clock = ManualClock()
    async with member(place, clock) as (_, a), member(place, clock) as (_, b):
        first, second = await a.join("one", 3), await b.join("two", 5)
        assert len(first.held()) == 3
        assert len(second.held()) == 5
        assert first.fence(4) is None


async def test_members_find_out_by_themselves(place: Place):
    """Nobody calls for a heartbeat: a newcomer gets its part, and a part that is given back is taken."""
    clock = ManualClock()
    async with AsyncExitStack() as stack:
        _, a = await stack.enter_async_context(member(place, clock, process_owner("a")))
        first = await a.join(NAME, 4)
        _, b = await stack.enter_async_context(member(place, clock, process_owner("b")))
        second = await b.join(NAME, 4)

        async def both_have_two() -> bool:
            clock.advance(0.1)
            return len(first.held()) == len(second.held()) == 2

        await eventually(both_have_two)
        await first.close()

        async def all_free_taken() -> bool:
            return len(second.held()) == 4

        await eventually(all_free_taken)  # without the clock: what is free is seen


async def test_nobody_takes_a_lease_while_an_effect_is_committed_under_it(place: Place):
    """The check holds until its transaction ends: an effect and a takeover never both succeed."""
    theirs, ours = ManualClock(), ManualClock()
    async with member(place, theirs) as (database, a), member(place, ours) as (_, b):
        first = await a.join(NAME, 1)
        fence = first.fence(0)
        assert fence is not None
        second = await b.join(NAME, 1)
        ours.advance(2)
        await b.beat()
        ours.advance(2)
        async with asyncio.TaskGroup() as group, database.transaction() as tx:
            await check(tx, fence)
            taking = group.create_task(b.beat())
            if database.path is None:
                await taking  # it goes without this one
            else:
                await asyncio.sleep(0.05)  # it waits for its turn
                assert not taking.done()
            assert second.held() == {}
        await b.beat()
        assert sorted(second.held()) == [0]


@given(st.data())
def test_plans_lead_to_a_fair_share_and_then_rest(data: st.DataObject):
    """From any state, with any members, in any order of heartbeats: shares differ by at most one, nothing is held
    twice, and then nothing moves any more."""
    partitions = data.draw(st.integers(1, 20))
    names = [f"member {n}" for n in range(data.draw(st.integers(1, 6)))]
    holders = st.sampled_from([*names, "", "a dead one"])
    rows = {n: Lease(n, 1, data.draw(holders)) for n in range(partitions)}
    shares = {name: Share(None, "x", partitions) for name in names}  # pyright: ignore[reportArgumentType]

    def beat(name: str) -> bool:
        plan = make_plan(shares[name], list(rows.values()), names, name)
        moves = bool(plan.give or plan.take or plan.leaving)
        for partition in plan.give:
            assert rows[partition].member == name
            rows[partition] = Lease(partition, rows[partition].epoch, "")
        for lease in plan.take:
            assert rows[lease.partition].member not in names
            rows[lease.partition] = Lease(lease.partition, lease.epoch + 1, name)
            plan.epochs[lease.partition] = lease.epoch + 1
        plan.settle()
        return moves

    for _ in range(6):
        for name in data.draw(st.permutations(names)):
            beat(name)
    counts = [sum(row.member == name for row in rows.values()) for name in names]
    assert sum(counts) == partitions
    assert max(counts) - min(counts) <= 1
    assert not any(beat(name) for name in names)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_processes_that_end_or_are_paused_lose_their_share(place: Place, how: signal.Signals):
    """Real processes: one is killed or paused in the middle of its work. Another takes its partitions; the paused one,
    going on, is refused what it commits late, and gets a share again."""
    async with Database(place.url, place.module) as database, database.transaction() as tx:
        await tx.execute(text("CREATE TABLE effects (epoch BIGINT)"))
    first, second = Member(place), None
    try:
        assert first.ask("begin")
        first.send(how)
        second = Member(place)
        other = second

        async def has_all() -> bool:
            return len(other.ask("held")) == PARTITIONS

        await eventually(has_all)
        assert second.ask("begin")
        assert second.ask("commit") == "done"
        if how == signal.SIGSTOP:
            first.send(signal.SIGCONT)
            assert first.ask("commit") == "lost"
            paused = first

            async def has_half() -> bool:
                return len(paused.ask("held")) == len(other.ask("held")) == PARTITIONS / 2

            await eventually(has_half)
            assert first.ask("close") == "closed"
        assert second.ask("close") == "closed"
    finally:
        first.end()
        if second is not None:
            second.end()
    async with Database(place.url, place.module) as database, database.read() as r:
        assert len((await r.execute(text("SELECT epoch FROM effects"))).scalars().all()) == 1
