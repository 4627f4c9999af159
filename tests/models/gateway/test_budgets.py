"""A limit is a limit: for calls at once, over processes, windows, crashes and full disks."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from seamline.kernel.clock import ManualClock
from seamline.kernel.settings.ai_gateway import AiBudgetSettings
from seamline.models.gateway import budgets as budgets_file
from seamline.models.gateway import ledger_journal
from seamline.models.gateway.budgets import Budgets, Reservation, limits_of
from seamline.models.gateway.errors import BudgetExceeded, NoTarget
from seamline.models.gateway.keys import Caller, Key, caller
from seamline.models.gateway.ledger_journal import left_by
from seamline.models.gateway.prices import NOTHING, Cost
from seamline.models.gateway.quota import FOREVER, Limit, window

ANN = Caller(Key(id="k1", name="shop"), "ann")
CALL = Cost(10, 100)


def limit(**given: object) -> Limit:
    facts: dict[str, object] = {"name": "cap", "by": "key", "unit": "requests", "most": 5, "per": "day", **given}
    return Limit(**facts)  # type: ignore[arg-type]


class Opened:
    def __init__(self, path: Path) -> None:
        self.path = path / "budgets.db"
        self.all: list[Budgets] = []

    async def __call__(self, *limits: Limit, clock: ManualClock | None = None) -> Budgets:
        budgets = Budgets(self.path, limits, clock=clock)
        await budgets.start()
        self.all.append(budgets)
        return budgets

    async def killed(self, budgets: Budgets) -> None:
        """As a ``kill -9`` leaves it."""
        self.all.remove(budgets)
        async with budgets._exchanging:
            await budgets._owner.stop()
        budgets.journal.close()
        budgets._ledger._connection.close()
        budgets._thread.shutdown()


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    found = Opened(tmp_path)
    yield found
    for budgets in found.all:
        await budgets.close()


async def reserve(budgets: Budgets, cost: Cost = CALL, who: Caller = ANN, model: str = "fast") -> Reservation:
    return budgets.reserve_now(who, model, cost) or await budgets.reserve(who, model, cost)


async def used(budgets: Budgets, account: str, unit: str = "requests") -> int:
    return sum(each.used for each in await budgets.spent() if (each.account, each.unit) == (account, unit))


async def test_of_200_calls_at_once_as_many_pass_as_the_limit_has_room_for(opened: Opened):
    """Through two ledger clients, each call reserved before and settled after: 137 pass, not one more or less."""
    cap = limit(most=137)
    both = [await opened(cap), await opened(cap)]

    async def call(number: int) -> bool:
        try:
            reservation = await reserve(both[number % 2])
        except BudgetExceeded:
            return False
        reservation.asked(CALL)
        await asyncio.sleep(0.001 * (number % 7))
        reservation.settle(CALL)
        return True

    passed = await asyncio.gather(*(call(number) for number in range(200)))
    assert sum(passed) == 137
    await both[0].tell()
    assert await used(both[1], "key:k1") == 137
    assert await used(both[1], "used:k1", "money") == 137 * 100


async def test_money_that_is_settled_while_the_ledger_is_written_is_counted_once(opened: Opened):
    """Exchanges and calls go on at the same time; at the end the ledger is the sum of all calls."""
    budgets = await opened(limit(unit="money", most=10**9), limit(unit="tokens", most=10**9))
    telling = True

    async def tell() -> None:
        while telling:
            await budgets.tell()

    async with asyncio.TaskGroup() as group:
        group.create_task(tell())
        total = 0
        for number in range(400):
            reservation = await reserve(budgets)
            cost = Cost(number % 10, number % 97)
            total += cost.nano
            if number % 3 == 0:
                await asyncio.sleep(0)
            reservation.settle(cost)
        telling = False
    spent = {(each.account, each.unit): each for each in await budgets.spent()}
    assert spent["key:k1", "money"].used == total
    assert budgets.stats()["calls"] == 0
    meter = next(meter for meter in budgets._lent if meter.limit and meter.limit.unit == "money")
    assert meter.granted == meter.free + meter.spent == spent["key:k1", "money"].held


async def test_what_a_call_did_not_use_is_there_for_the_next(opened: Opened):
    """It is reserved while it may be needed, and free afterwards."""
    budgets = await opened(limit(unit="money", most=250))
    first, _second = await reserve(budgets), await reserve(budgets)
    with pytest.raises(BudgetExceeded) as refused:
        await reserve(budgets)
    assert refused.value.retry_after_s == 1.0
    first.settle(Cost(1, 20))
    await reserve(budgets)


async def test_one_call_for_which_no_budget_could_ever_suffice_is_told_so(opened: Opened):
    """There is no use in coming again, and nothing waits."""
    budgets = await opened(limit(unit="money", most=99))
    with pytest.raises(BudgetExceeded, match=r"of 0\.000000099 money a day has no room for 0\.0000001 more") as refused:
        await reserve(budgets)
    assert refused.value.retry_after_s == 0


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"per": "minute", "unit": "tokens"}, "rate_limit_exceeded"),
        ({"per": "day", "unit": "requests"}, "rate_limit_exceeded"),
        ({"per": "month", "unit": "money"}, "insufficient_quota"),
    ],
)
def test_clients_are_told_whether_to_wait_or_to_pay(given: dict[str, object], kind: str):
    """By the words that OpenAI's clients know."""
    assert limit(**given).kind == kind


async def test_a_window_ends_by_the_calendar_and_says_when(opened: Opened):
    """A day's limit at half past eleven is retried after half an hour, and is new at midnight."""
    clock = ManualClock(datetime(2026, 2, 28, 23, 30, tzinfo=UTC))
    budgets = await opened(limit(most=1, unit="tokens", per="month", name="m"), limit(most=1), clock=clock)
    (await reserve(budgets, Cost(1, 0))).settle(Cost(1, 0))
    clock.advance(1)
    with pytest.raises(BudgetExceeded) as refused:
        await reserve(budgets, Cost(1, 0))
    assert refused.value.retry_after_s == pytest.approx(1799)
    clock.advance(1799)
    (await reserve(budgets, Cost(1, 0))).settle(Cost(1, 0))


def test_windows_follow_the_calendar():
    """Months have their lengths, and the total never ends."""
    leap = datetime(2028, 2, 29, 13, 14, 15, tzinfo=UTC).timestamp()

    def span(per: str) -> list[str]:
        return [datetime.fromtimestamp(at, UTC).isoformat() for at in window(per, leap)]  # type: ignore[arg-type]

    assert span("minute") == ["2028-02-29T13:14:00+00:00", "2028-02-29T13:15:00+00:00"]
    assert span("hour") == ["2028-02-29T13:00:00+00:00", "2028-02-29T14:00:00+00:00"]
    assert span("day") == ["2028-02-29T00:00:00+00:00", "2028-03-01T00:00:00+00:00"]
    assert span("month") == ["2028-02-01T00:00:00+00:00", "2028-03-01T00:00:00+00:00"]
    assert window("total", leap) == (0, FOREVER)


async def test_each_of_what_a_limit_is_by_has_its_own(opened: Opened):
    """User, tenant, team, agent; a limit of one model, of one name, and of all together."""
    limits = [
        limit(name="user", by="user", most=2),
        limit(name="tenant", by="tenant", most=3),
        limit(name="agent", by="agent", most=1, models=("slow",)),
        limit(name="vip", by="user", of="zed", unit="money", most=100),
        limit(name="all", by="all", most=7),
    ]
    budgets = await opened(*limits)
    key = Key(id="k1", tenant="acme")

    async def name(user: str, agent: str = "", model: str = "fast") -> str:
        try:
            (await reserve(budgets, CALL, caller(key, user, "not-acme" if key.tenant else "", agent), model)).settle(
                CALL
            )
        except BudgetExceeded as refused:
            return refused.limit
        return ""

    assert [await name("ann") for _ in range(3)] == ["", "", "user"]
    assert await name("bob", "bot") == ""
    assert await name("bob", "bot") == "tenant"  # the key's tenant, whatever the request says
    key = Key(id="k2")
    assert [await name("cid", "bot", "slow") for _ in range(2)] == ["", "agent"]
    assert [await name("zed") for _ in range(2)] == ["", "vip"]
    assert [await name("") for _ in range(3)] == ["", "", "all"]


async def test_a_key_brings_its_own_limits_and_the_lower_of_two_holds(opened: Opened):
    """What stands on the key counts besides what holds for all keys."""
    budgets = await opened(limit(most=3))
    mine = Caller(Key(id="k9", limits=(limit(name="own", most=2),)))
    for _ in range(2):
        (await reserve(budgets, CALL, mine)).settle(CALL)
    with pytest.raises(BudgetExceeded) as refused:
        await reserve(budgets, CALL, mine)
    assert refused.value.limit == "own"


async def test_what_another_process_holds_and_does_not_need_is_called_back(opened: Opened):
    """A call that needs nearly all of a limit gets it, though another has a slice."""
    cap = limit(unit="money", most=1000)
    one, other = await opened(cap), await opened(cap)
    (await reserve(one, Cost(1, 1))).settle(Cost(1, 1))
    assert any(meter.free for meter in one._lent)
    reservation = await reserve(other, Cost(1, 999))
    reservation.settle(NOTHING)


async def test_a_killed_process_gives_back_what_it_had_not_spent(opened: Opened):
    """What was settled and what an engine was asked for is booked; the rest is free for those who live."""
    cap = limit(unit="money", most=1000)
    one, other = await opened(cap), await opened(cap)
    held = [await reserve(one, Cost(1, 100)) for _ in range(8)]
    held[0].settle(Cost(1, 70))
    held[1].asked(Cost(1, 30))
    held[1].note(Cost(1, 45))
    await opened.killed(one)
    assert await used(other, "key:k1", "money") in (0, 70, 115)
    (await reserve(other, Cost(1, 1000 - 70 - 45))).settle(NOTHING)
    assert await used(other, "key:k1", "money") == 70 + 45
    assert await used(other, "used:k1", "requests") == 2


async def test_a_live_process_is_never_taken_for_dead(opened: Opened):
    """However long it does nothing and whatever the clock says: it holds its lock."""
    clock = ManualClock()
    cap = limit(unit="money", most=100)
    one, other = await opened(cap, clock=clock), await opened(cap, clock=clock)
    held = await reserve(one, Cost(1, 100))
    clock.advance(3600)

    async def refused() -> None:
        with pytest.raises(BudgetExceeded):
            await other.reserve(ANN, "fast", Cost(1, 1))

    async with asyncio.TaskGroup() as group:
        task = group.create_task(refused())
        while not task.done():
            await other.tell()
            clock.advance(0.1)
    held.settle(Cost(1, 100))
    await one.tell()
    assert await used(other, "key:k1", "money") == 100


async def test_what_is_dropped_unsettled_is_given_back(opened: Opened):
    """A caller's mistake does not shrink a budget for ever; what an engine was asked for is booked."""
    budgets = await opened(limit(unit="money", most=100))
    reservation = await reserve(budgets, Cost(1, 100))
    reservation.asked(Cost(1, 40))
    del reservation
    gc.collect()
    await budgets.tell()
    (await reserve(budgets, Cost(1, 60))).settle(Cost(1, 60))
    assert await used(budgets, "key:k1", "money") == 100


async def test_a_caller_that_goes_away_while_it_waits_leaves_nothing_reserved(opened: Opened):
    """Whether it goes before the ledger answers or in the same moment."""
    budgets = await opened(limit(unit="money", most=100))
    for turns in range(12):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(reserve(budgets, Cost(1, 100)))
            for _ in range(turns):
                await asyncio.sleep(0.0005)
            task.cancel()
        if not task.cancelled():
            task.result().settle(NOTHING)
        await budgets.tell()
    (await reserve(budgets, Cost(1, 100))).settle(NOTHING)


async def test_settling_twice_counts_once(opened: Opened):
    """So that it may stand in a `finally`."""
    budgets = await opened(limit(unit="money", most=100))
    reservation = await reserve(budgets)
    reservation.settle(CALL)
    reservation.settle(CALL)
    assert await used(budgets, "key:k1", "money") == 100


async def test_a_call_that_costs_more_than_was_reserved_closes_the_budget_for_the_next(opened: Opened):
    """It is booked as it was: the limit is passed by that much, and by no other call."""
    budgets = await opened(limit(unit="money", most=100))
    (await reserve(budgets, Cost(1, 10))).settle(Cost(1, 130))
    with pytest.raises(BudgetExceeded):
        await reserve(budgets, Cost(1, 1))
    assert await used(budgets, "key:k1", "money") == 130


async def test_spending_outlives_a_restart(opened: Opened):
    """The ledger is a file."""
    budgets = await opened(limit(most=1))
    (await reserve(budgets)).settle(CALL)
    await budgets.close()
    opened.all.remove(budgets)
    with pytest.raises(BudgetExceeded):
        await reserve(await opened(limit(most=1)))
    assert not list(opened.path.with_name("budgets.db.open").glob(f"{budgets.journal.holder}*"))


async def test_a_ledger_that_cannot_be_written_lets_nobody_in_and_loses_nothing(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
):
    """Refused while the disk is full; what was spent before is booked when it is not."""
    budgets = await opened(limit(unit="money", most=100))
    first = await reserve(budgets, Cost(1, 60))

    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(budgets._ledger, "exchange", full)
        first.settle(Cost(1, 50))
        with pytest.raises(NoTarget, match="disk is full"):
            await budgets.reserve(ANN, "other", Cost(1, 50))
    (await reserve(budgets, Cost(1, 50))).settle(Cost(1, 50))
    assert await used(budgets, "key:k1", "money") == 100


async def test_memory_does_not_grow_with_callers_and_time(opened: Opened, monkeypatch: pytest.MonkeyPatch):
    """Of two hundred users and an hour of minutes only those of now stay, here and in the ledger; old sums are
    forgotten there in time, newer ones are not."""
    monkeypatch.setattr(budgets_file, "_GROUPS_MAX", 20)
    clock = ManualClock(datetime(2026, 1, 31, tzinfo=UTC))
    budgets = await opened(limit(by="user", per="total"), limit(by="user", per="minute", name="m"), clock=clock)
    for number in range(200):
        (await reserve(budgets, CALL, Caller(Key(id="k"), f"u{number}"))).settle(CALL)
        clock.advance(18)
    for _ in range(3):
        clock.advance(61)
        await budgets.tell()
    assert budgets.stats()["meters"] <= 20 * 2 + 3
    assert len(budgets._groups) + len(budgets._old_groups) <= 20
    count = budgets._ledger._connection.execute
    assert count("SELECT count(*) FROM groups").fetchone()[0] <= 20
    assert count("SELECT count(*) FROM slices").fetchone()[0] == 0
    clock.advance(86400)
    await budgets.tell()
    kept = {(each.per, each.used) for each in await budgets.spent() if each.account.startswith("user:")}
    assert kept == {("total", 1)}
    assert await used(budgets, "used:k") == 200


def test_a_journal_cut_at_any_word_counts_a_call_once_or_not(tmp_path: Path):
    """A process may die after each single word that it writes."""
    journal = ledger_journal.Journal(tmp_path)
    words, cut = journal._words, [0]

    class Dies:
        def __getitem__(self, at: int) -> int:
            return words[at]

        def __setitem__(self, at: int, value: int) -> None:
            cut[0] -= 1
            if cut[0] < 0:
                raise KeyboardInterrupt
            words[at] = value

    journal._words = Dies()  # type: ignore[assignment]
    sums: list[list[int]] = []
    for words_left in range(14):
        cut[0] = 1 << 30
        place = journal.begin(1, 5, 50)
        before = journal.tail
        cut[0] = words_left
        try:
            journal.note(place, 7, 70)
            journal.settle(place, 1, 9, 90)
        except KeyboardInterrupt:
            pass
        sums.append([record.nano for record in left_by(journal.path, before)])
        words[place] = 0
        journal.tail = words[1]
    assert all(len(each) == 1 for each in sums), sums
    assert [each[0] for each in sums] == [50, 50, 70, 70, 70, 70, 70, 90, 90, 90, 90, 90, 90, 90]
    journal._words = words
    journal.close()


def test_settings_become_limits():
    """One for each unit that an entry bounds; money is exact."""
    entry = AiBudgetSettings(name="team", by="team", money=0.1, requests=7, period="day", models=("fast",))
    assert limits_of([entry]) == (
        Limit(name="team", by="team", unit="money", most=100_000_000, per="day", models=("fast",)),
        Limit(name="team", by="team", unit="requests", most=7, per="day", models=("fast",)),
    )
