"""The engine against a model: whatever crashes, pauses, fails or is said twice, each saga does all of it once, or none.

Two engines share a store, in one process. They are started, drained, cut off and paused (they run on, but their lease
is taken), while sagas are started, signalled and cancelled, and calls and compensations fail. At the end of each
example everything works again, and all sagas must come to an end.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select
from tests.sagas.rig import FAST, Host

from seamline.kernel.clock import ManualClock
from seamline.kernel.store import Database, sqlite_url
from seamline.module import Contract, Fault, Module, Unavailable, current
from seamline.sagas import Saga, SagaEndedError
from seamline.sagas.journal.tables import TABLES

tables = MetaData()
rows = Table("rows", tables, Column("n", Integer, primary_key=True), Column("saga", Text), Column("what", Text))
stories = Module("stories", tables=tables)

STEPS = ("call", "row", "both", "wait", "sleep", "branches", "fault")


class Broken(Fault):
    """The story ends badly."""


class Others(Contract):
    async def do(self, saga: str, what: str) -> str: ...
    async def undo(self, saga: str, what: str) -> None: ...


class OtherModules(Others):
    """Honours keys; its calls fail before or after their effect as often as it is told to."""

    def __init__(self) -> None:
        self.done: dict[str, tuple[str, str]] = {}
        self.effects: Counter[tuple[str, str]] = Counter()
        self.lose = 0
        self.refuse = 0

    async def _once(self, saga: str, what: str) -> None:
        if self.refuse:
            self.refuse -= 1
            error = Unavailable("refused")
            error.started = False
            raise error
        context = current()
        key = context.key_for_calls if context is not None else None
        assert key is not None
        if key not in self.done:
            self.done[key] = (saga, what)
            self.effects[saga, what] += 1
        await asyncio.sleep(0)
        if self.lose:
            self.lose -= 1
            raise Unavailable("the answer was lost")

    async def do(self, saga: str, what: str) -> str:
        await self._once(saga, what)
        return what

    async def undo(self, saga: str, what: str) -> None:
        await self._once(saga, f"not {what}")


@stories.saga
async def story(s: Saga, plan: list[str], others: Others, db: Database) -> list[int]:
    heard: list[int] = []

    async def write(what: str) -> str:
        async with db.transaction() as tx:
            await tx.execute(insert(rows).values(saga=s.id, what=what))
        return what

    async def unwrite(what: str) -> None:
        await write(f"not {what}")

    async def branch(n: int, name: str) -> None:
        await s.step(others.do, s.id, f"{n}{name}1", undo=lambda what: others.undo(s.id, what))
        await s.step(write, f"{n}{name}2", undo=unwrite)

    for n, what in enumerate(plan):
        if what == "call":
            await s.step(others.do, s.id, f"{n}", undo=lambda what: others.undo(s.id, what))
        elif what == "row":
            await s.step(write, f"{n}", undo=unwrite)
        elif what == "both":
            call = s.step(others.do, s.id, f"{n}a", undo=lambda what: others.undo(s.id, what))
            await s.gather(call, s.step(write, f"{n}b", undo=unwrite))
        elif what == "branches":
            await asyncio.gather(branch(n, "x"), branch(n, "y"))
        elif what == "wait":
            heard.append(await s.wait_signal("number", int))
        elif what == "sleep":
            await s.sleep(5)
        else:
            raise Broken
    return heard


def effects_of(plan: list[str]) -> set[str]:
    """What a story that succeeds has done."""
    found: set[str] = set()
    for n, what in enumerate(plan):
        if what in ("call", "row"):
            found.add(f"{n}")
        elif what == "both":
            found |= {f"{n}a", f"{n}b"}
        elif what == "branches":
            found |= {f"{n}x1", f"{n}x2", f"{n}y1", f"{n}y2"}
    return found


class Machine(RuleBasedStateMachine):
    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.others = OtherModules()
        self.plans: dict[str, list[str]] = {}
        self.keys: dict[str, str] = {}
        self.sent: dict[str, list[int]] = {}
        self.cancelled: set[str] = set()
        self.hosts: list[Host] = []
        self.paused: list[Host] = []
        self.born = 0
        self.troubled = False
        self.db: Database
        self.seconds = 0.0

    def run(self, work: Any) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(60):
                return await work

        return self.runner.run(bounded())

    async def settle(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0.0005)

    @initialize()
    def begin(self) -> None:
        async def work() -> None:
            self.db = Database(type(self).url or sqlite_url(Path(self.folder.name), "stories"), "stories", tables)
            await self.db.start()
            await self.db.ensure(tables)
            await self.db.ensure(TABLES)
            async with self.db.transaction() as tx:  # of the example before, where they share a server
                for table in (rows, *TABLES.sorted_tables):
                    await tx.execute(table.delete())
                await tx.exec_driver_sql("INSERT INTO seamline_saga_format (format) VALUES (1)")
            for _ in range(2):
                await self.host()

        self.run(work())

    async def host(self) -> None:
        self.born += 1
        clock = ManualClock()
        clock.advance(self.seconds)
        host = Host(
            stories, self.db, clock, settings=FAST, owner=f"elsewhere/{self.born}/0", stubs={Others: self.others}
        )
        await host.start()
        self.hosts.append(host)

    def pick(self, which: int) -> Host:
        return self.hosts[which % len(self.hosts)]

    @rule(
        which=st.integers(0, 1),
        plan=st.lists(st.sampled_from(STEPS), min_size=1, max_size=5),
        key=st.sampled_from(["", "a", "b"]),
    )
    def start(self, which: int, plan: list[str], key: str) -> None:
        async def work() -> None:
            handle = await self.pick(which).sagas.start(story, plan, key=key)
            if key:
                assert self.keys.setdefault(key, handle.id) == handle.id, "one key has two sagas"
            self.plans.setdefault(handle.id, plan)
            await self.settle()

        self.run(work())

    @rule(which=st.integers(0, 1), saga=st.integers(0, 99), number=st.integers(0, 9))
    def signal(self, which: int, saga: int, number: int) -> None:
        if self.plans:
            self.run(self.tell(which, list(self.plans)[saga % len(self.plans)], number))

    async def tell(self, which: int, saga: str, number: int) -> None:
        try:
            await self.pick(which).sagas.handle(saga).signal("number", number)
        except SagaEndedError:
            return
        self.sent.setdefault(saga, []).append(number)
        await self.settle()

    @rule(which=st.integers(0, 1), saga=st.integers(0, 99))
    def cancel(self, which: int, saga: int) -> None:
        async def work() -> None:
            found = list(self.plans)[saga % len(self.plans)]
            try:
                await self.pick(which).sagas.handle(found).cancel("no more")
                self.cancelled.add(found)
            except SagaEndedError:
                pass
            await self.settle()

        if self.plans:
            self.run(work())

    @rule(which=st.integers(0, 1))
    def crash(self, which: int) -> None:
        async def work() -> None:
            host = self.pick(which)
            self.hosts.remove(host)
            await host.crash()
            await self.host()

        self.run(work())

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        async def work() -> None:
            host = self.pick(which)
            self.hosts.remove(host)
            await host.stop()
            await self.host()

        self.run(work())

    @rule(which=st.integers(0, 1))
    def pause(self, which: int) -> None:
        """Its clock stands still: it is not heard of any more, and does not know."""

        async def work() -> None:
            host = self.pick(which)
            self.hosts.remove(host)
            self.paused.append(host)
            await self.host()

        self.run(work())

    @rule(lose=st.integers(0, 4), refuse=st.integers(0, 4))
    def trouble(self, lose: int, refuse: int) -> None:
        self.others.lose, self.others.refuse = lose, refuse
        self.troubled = self.troubled or lose + refuse > 0

    @rule(seconds=st.sampled_from([0.5, 4.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        self.run(self.advance(seconds))

    async def advance(self, seconds: float) -> None:
        for _ in range(8):
            self.seconds += seconds / 8
            for host in self.hosts:
                clock = host.clock
                assert isinstance(clock, ManualClock)
                clock.advance(seconds / 8)
            await self.settle()

    def teardown(self) -> None:
        try:
            if self.hosts:
                self.run(self.finish())
        finally:
            self.run(self.end())
            self.runner.close()
            self.folder.cleanup()

    async def end(self) -> None:
        for host in [*self.paused, *self.hosts]:
            await host.crash()
        await self.db.close()

    async def finish(self) -> None:
        self.others.lose = self.others.refuse = 0
        for saga in self.plans:
            for _ in range(5):
                await self.tell(0, saga, 1)
        async with asyncio.timeout(40):
            while True:
                await self.advance(40)
                sql = "SELECT id FROM seamline_sagas WHERE ended_ms = 0"
                if not await self.hosts[0].engine.journal.store.read(sql):
                    break
        await self.check()

    async def check(self) -> None:
        async with self.db.read() as r:
            written = Counter((row[0], row[1]) for row in (await r.execute(select(rows.c.saga, rows.c.what))).all())
        effects = written + self.others.effects
        for saga, plan in self.plans.items():
            handle = self.hosts[0].sagas.handle(saga)
            info = await handle.status()
            did = {what: count for (found, what), count in effects.items() if found == saga}
            assert all(count == 1 for count in did.values()), ("twice", saga, plan, did)
            if info.status == "succeeded":
                assert "fault" not in plan
                assert set(did) == effects_of(plan), (saga, plan, did)
                heard = await handle.result()
                assert heard == self.sent.get(saga, [])[: len(heard)], "signals in another order"
            else:
                assert info.status == "failed" or (info.status == "cancelled" and saga in self.cancelled)
                done = {what for what in did if not what.startswith("not ")}
                undone = {what.removeprefix("not ") for what in did if what.startswith("not ")}
                assert done == undone, (info.status, plan, did)
                assert saga in self.cancelled or "fault" in plan or self.troubled, (info.status, plan)


SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
EXAMPLES = settings(
    max_examples=25, stateful_step_count=14, deadline=None, suppress_health_check=SLOW, derandomize=True
)


def test_the_engine_keeps_its_promises_on_sqlite():
    """25 stories of crashes, every time the same."""
    run_state_machine_as_test(Machine, settings=EXAMPLES)  # type: ignore[no-untyped-call]


def test_a_step_that_ends_while_another_is_written_is_not_missed_later():
    """A call and a step of the module's own at once, then a sleep out of memory: the story goes on and ends."""
    machine = Machine()
    machine.begin()
    machine.start(which=0, key="", plan=["both", "sleep"])
    machine.teardown()


class HoldsBack(OtherModules):
    """Its first answer never comes, though the effect is there."""

    held = True

    async def do(self, saga: str, what: str) -> str:
        await super().do(saga, what)
        if what == "0x1" and self.held:
            await asyncio.Event().wait()
        return what


def test_what_a_dead_process_had_under_way_is_undone_though_another_branch_went_on():
    """A call had its effect, and no answer yet; the other branch wrote its own step; the process died and somebody
    cancelled: the call is asked again under its key, and undone.
    """
    machine = Machine()
    others = machine.others = HoldsBack()
    machine.begin()
    machine.start(which=0, key="", plan=["branches"])

    async def other_branch_is_through() -> None:
        query = select(rows).where(rows.c.what == "0y2")
        while True:
            async with machine.db.read() as r:
                if (await r.execute(query)).first() is not None:
                    return
            await asyncio.sleep(0.001)

    machine.run(other_branch_is_through())
    machine.crash(which=0)
    others.held = False
    machine.cancel(saga=0, which=0)
    machine.teardown()


@pytest.mark.torture
def test_the_engine_keeps_its_promises_on_sqlite_for_long():
    """150 stories, every time others."""
    long = settings(EXAMPLES, max_examples=150, stateful_step_count=30, derandomize=False)
    run_state_machine_as_test(Machine, settings=long)  # type: ignore[no-untyped-call]


@pytest.mark.needs_server
def test_the_engine_keeps_its_promises_on_postgresql(postgres_server: Any):
    """Eight short stories."""

    class OnPostgresql(Machine):
        url = postgres_server.url()

    few = settings(EXAMPLES, max_examples=8, stateful_step_count=10)
    run_state_machine_as_test(OnPostgresql, settings=few)  # type: ignore[no-untyped-call]
