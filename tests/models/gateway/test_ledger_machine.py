"""Several processes' budgets on one ledger, killed and restarted, with clocks that jump: the sums always agree."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from seamline.models.gateway.budgets import Budgets, Reservation
from seamline.models.gateway.errors import BudgetExceeded
from seamline.models.gateway.keys import Caller, Key
from seamline.models.gateway.ledger import Ledger, meter_name
from seamline.models.gateway.prices import NOTHING, Cost
from seamline.models.gateway.quota import Limit, Unit, window

LIMITS = (
    Limit(name="money", by="user", unit="money", most=1000, per="day"),
    Limit(name="tokens", by="user", unit="tokens", most=500, per="total"),
    Limit(name="calls", by="key", unit="requests", most=40, per="day"),
)
KEY = Key(id="k1")
CLIENTS = 3
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Nothing here is about disks."""


class JumpingClock:
    """The wall clock is set by whoever likes to; the other one only goes on."""

    def __init__(self) -> None:
        self.wall = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.steady = 1000.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    def go_on(self, seconds: float) -> None:
        self.steady += seconds
        self.wall += timedelta(seconds=seconds)


@dataclasses.dataclass
class Open:
    client: int
    reservation: Reservation
    user: str
    cost: Cost
    day: int
    noted: Cost = NOTHING
    asked: bool = False


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.path = Path(self.folder.name) / "budgets.db"
        self.runner = asyncio.Runner()
        self.clock = JumpingClock()
        self.clients = [self.started() for _ in range(CLIENTS)]
        self.open: list[Open] = []
        self.used: Counter[tuple[str, int]] = Counter()
        self.graveyard: list[Budgets] = []

    def started(self) -> Budgets:
        async def start() -> Budgets:
            return Budgets(self.path, LIMITS, clock=self.clock)

        return self.runner.run(start())

    def meters(self, user: str, cost: Cost, day: int) -> list[tuple[tuple[str, int], int, int]]:
        """Each meter that a call counts on, the amount, and what the limit is."""
        amounts: dict[Unit, int] = {"money": cost.nano, "tokens": cost.tokens, "requests": 1}
        found: list[tuple[tuple[str, int], int, int]] = []
        for limit in LIMITS:
            account = "key:k1" if limit.by == "key" else f"user:{user}"
            begins = 0 if limit.per == "total" else day
            found.append(((meter_name(account, limit.unit, limit.per), begins), amounts[limit.unit], limit.most))
        return found

    def reserved(self) -> Counter[tuple[str, int]]:
        held: Counter[tuple[str, int]] = Counter()
        for each in self.open:
            for meter, amount, _ in self.meters(each.user, each.cost, each.day):
                held[meter] += amount
        return held

    @property
    def day(self) -> int:
        return window("day", self.clock.wall.timestamp())[0]

    @rule(
        client=st.integers(0, CLIENTS - 1),
        user=st.sampled_from(["ann", "bob"]),
        tokens=st.integers(0, 300),
        nano=st.integers(0, 1000),
    )
    def reserve(self, client: int, user: str, tokens: int, nano: int) -> None:
        cost = Cost(tokens, nano)
        day = self.day
        held = self.reserved()
        room = all(
            self.used[meter] + held[meter] + amount <= most for meter, amount, most in self.meters(user, cost, day)
        )
        reservation = self.runner.run(self.asking(client, Caller(KEY, user), cost))
        if reservation is None and room:
            # A refusal is remembered for half a second.
            self.clock.go_on(0.6)
            day = self.day
            reservation = self.runner.run(self.asking(client, Caller(KEY, user), cost))
            assert reservation is not None or day != self.day, "refused, and there was room"
        if reservation is not None:
            assert room, "more than there was room for"
            self.open.append(Open(client, reservation, user, cost, day))

    async def asking(self, client: int, who: Caller, cost: Cost) -> Reservation | None:
        budgets = self.clients[client]
        try:
            reservation = budgets.reserve_now(who, "m", cost)
        except BudgetExceeded:
            return None
        if reservation is not None:
            return reservation

        async def wait() -> Reservation | None:
            try:
                return await budgets.reserve(who, "m", cost)
            except BudgetExceeded:
                return None

        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(wait())
            while not waiting.done():
                await asyncio.sleep(0)
                for each in (budgets, *self.clients):
                    await each.tell()
                self.clock.go_on(0.1)
        return waiting.result()

    @precondition(lambda self: self.open)
    @rule(data=st.data(), share=st.floats(0, 1))
    def ask(self, data: st.DataObject, share: float) -> None:
        each = data.draw(st.sampled_from(self.open))
        each.noted, each.asked = Cost(int(each.cost.tokens * share), int(each.cost.nano * share)), True
        each.reservation.asked(each.noted)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), share=st.floats(0, 1))
    def settle(self, data: st.DataObject, share: float) -> None:
        each = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        cost = Cost(int(each.cost.tokens * share), int(each.cost.nano * share))
        each.reservation.settle(cost)
        self.count(each, cost)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        each = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        each.reservation.settle(NOTHING)
        if each.asked:
            self.count(each, NOTHING)

    def count(self, each: Open, cost: Cost) -> None:
        for meter, amount, _ in self.meters(each.user, cost, each.day):
            self.used[meter] += amount

    @rule(client=st.integers(0, CLIENTS - 1))
    def tell(self, client: int) -> None:
        self.runner.run(self.tell_one(client))

    async def tell_one(self, client: int) -> None:
        assert await self.clients[client].tell()

    @rule(client=st.integers(0, CLIENTS - 1), midway=st.booleans())
    def kill(self, client: int, midway: bool) -> None:
        """As the kernel ends it: its lock is gone, and nothing else happens."""
        dead = self.clients[client]
        if midway:
            # Between the record of a settled call and the clearing of its place.
            for each in [each for each in self.open if each.client == client and each.asked][:1]:
                journal, place = dead.journal, each.reservation._place
                words, serial = journal._words, journal._words[place]
                each.reservation.settle(each.noted)
                words[place] = serial
                self.open.remove(each)
                self.count(each, each.noted)
        dead.journal.close()
        for each in [each for each in self.open if each.client == client]:
            self.open.remove(each)
            each.reservation._group = None
            if each.asked:
                self.count(each, each.noted)
        self.graveyard.append(dead)
        self.clients[client] = self.started()

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds: float) -> None:
        self.clock.go_on(seconds)

    @rule(hours=st.integers(-40, 40))
    def jump(self, hours: int) -> None:
        self.clock.wall += timedelta(hours=hours)

    @invariant()
    def nothing_is_overspent(self) -> None:
        ledger = Ledger(self.path)
        try:
            most = {limit.name: limit for limit in LIMITS}
            by = {(limit.by, limit.unit, limit.per): limit for limit in most.values()}
            for spent in ledger.spent():
                who = spent.account.split(":")[0]
                if who == "used":
                    continue
                limit = by[who, spent.unit, spent.per]  # type: ignore[index]
                assert spent.used + spent.held <= limit.most, spent
        finally:
            ledger.close(settled=True)

    def teardown(self) -> None:
        try:
            for each in self.open:
                each.reservation.settle(each.cost)
                self.count(each, each.cost)
            for budgets in self.clients:
                self.runner.run(budgets.close())
            ledger = Ledger(self.path)
            found = {
                (meter_name(each.account, each.unit, each.per), each.begins): each.used
                for each in ledger.spent()
                if not each.account.startswith("used:")
            }
            assert all(not each.held for each in ledger.spent())
            ledger.close(settled=True)
            assert {meter: used for meter, used in found.items() if used} == {
                meter: used for meter, used in self.used.items() if used
            }
            assert not list(self.path.with_name(self.path.name + ".open").iterdir())
        finally:
            for dead in self.graveyard:
                dead._ledger._connection.close()
                dead._thread.shutdown()
            self.runner.close()
            self.folder.cleanup()


TestLedger = Machine.TestCase
TestLedger.settings = settings(
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
