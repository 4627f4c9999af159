"""The log against a model of it: any operations in any order, on both stores, reopened at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.conftest import PostgresqlServer
from tests.events.log_rig import Place, record, sqlite_place

from seamline.events.log import Log
from seamline.events.record import Record, partition_of
from seamline.kernel.clock import ManualClock
from seamline.kernel.store import Database

T = TypeVar("T")

KEYS = st.sampled_from(["", "a", "b", "c", "ключ"])
DELAYS_S = st.sampled_from([0, 0, 0, 5, 60])
LIFETIMES_S = st.sampled_from([0, 0, 30])
TYPES = st.sampled_from(["Placed", "Paid"])


class LogMachine(RuleBasedStateMachine):
    """Two processes' views of one log. The model is a list of what is there, and one of what is not due."""

    place: Place
    """Set by who runs the machine."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.number = 0
        self.there: list[Record] = []
        self.delayed: list[Record] = []
        self.offsets: dict[str, int] = {}
        self.handed_out = 0
        self.opened: list[AbstractAsyncContextManager[tuple[Database, Log]]] = []
        self.views: list[tuple[Database, Log]] = []
        self.open()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def open(self) -> None:
        self.opened = [self.place.open(self.clock) for _ in range(2)]
        self.views = [self.run(each.__aenter__()) for each in self.opened]

    def close(self) -> None:
        for each in self.opened:
            self.run(each.__aexit__(None, None, None))

    @property
    def now_ms(self) -> int:
        return int(self.clock.now().timestamp() * 1000)

    def make(self, key: str, type_: str, delay_s: int, ttl_s: int) -> Record:
        self.number += 1
        due_ms = self.now_ms + delay_s * 1000 if delay_s else 0
        expires_ms = self.now_ms + ttl_s * 1000 if ttl_s else 0
        return record(self.number, key=key, type_=type_, at_ms=self.now_ms, due_ms=due_ms, expires_ms=expires_ms)

    def take(self, records: list[Record]) -> None:
        self.there += [each for each in records if not each.due_ms]
        self.delayed += [each for each in records if each.due_ms]

    def release(self) -> None:
        due = [each for each in self.delayed if each.due_ms <= self.now_ms]
        self.there += sorted(due, key=lambda each: each.due_ms)
        self.delayed = [each for each in self.delayed if each.due_ms > self.now_ms]

    @rule(
        made=st.lists(st.tuples(KEYS, TYPES, DELAYS_S, LIFETIMES_S), max_size=6),
        view=st.integers(0, 1),
        how=st.sampled_from(["alone", "in a transaction", "rolled back"]),
    )
    def append(self, made: list[tuple[str, str, int, int]], view: int, how: str) -> None:
        self.release_in_the_log()
        records = [self.make(*each) for each in made]
        database, log = self.views[view]

        async def work() -> None:
            if how == "alone":
                await log.append(records)
                return
            try:
                async with database.transaction() as tx:
                    await log.append(records, tx)
                    if how == "rolled back":
                        raise ZeroDivisionError  # noqa: TRY301  # any error rolls back
            except ZeroDivisionError:
                return

        self.run(work())
        if how != "rolled back":
            self.take(records)

    def release_in_the_log(self) -> None:
        """Both views look, so that what is due has its place before what comes next."""
        for _, log in self.views:
            log.poke()
            self.run(self.read_all(log, 0))
        self.release()

    @rule(seconds=st.integers(-20, 40))
    def time_goes_on(self, seconds: int) -> None:
        """Or jumps back."""
        self.release_in_the_log()
        self.clock.advance(seconds)

    @rule()
    def reopen(self) -> None:
        self.close()
        self.open()

    @rule(age_s=st.integers(1, 60), view=st.integers(0, 1))
    def trim_by_age(self, age_s: int, view: int) -> None:
        self.release_in_the_log()
        self.run(self.views[view][1].trim(older_than_s=age_s))
        self.there = [each for each in self.there if max(each.time_ms, each.due_ms) >= self.now_ms - age_s * 1000]

    @rule(type_=TYPES, view=st.integers(0, 1))
    def compact(self, type_: str, view: int) -> None:
        self.release_in_the_log()
        self.run(self.views[view][1].compact(type_))
        newest = {each.key: each for each in self.there if each.type == type_}
        self.there = [each for each in self.there if each.type != type_ or not each.key or newest[each.key] is each]

    @rule(ago_s=st.integers(-30, 60))
    def read_from_a_time(self, ago_s: int) -> None:
        self.release_in_the_log()
        start = self.clock.now() - timedelta(seconds=ago_s)
        start_ms = int(start.timestamp() * 1000)
        expected = list(self.there)
        while expected and max(expected[0].time_ms, expected[0].due_ms) < start_ms:
            expected.pop(0)
        log = self.views[0][1]
        assert self.run(self.read_all(log, self.run(log.offset_at(start)))) == self.alive(expected)

    @rule(partitions=st.sets(st.integers(0, 15), max_size=16), type_=TYPES)
    def read_a_part(self, partitions: set[int], type_: str) -> None:
        self.release_in_the_log()
        log = self.views[1][1]
        page = self.run(log.read(0, types=frozenset({type_}), partitions=partitions, limit=1_000))
        expected = [each for each in self.there if each.type == type_ and partition_of(each, 16) in partitions]
        assert [each.record for each in page] == self.alive(expected)

    def alive(self, records: list[Record]) -> list[Record]:
        return [each for each in records if not each.expires_ms or each.expires_ms > self.now_ms]

    async def read_all(self, log: Log, after: int) -> list[Record]:
        found: list[Record] = []
        while page := await log.read(after, limit=3):
            for offset, _, each in page:
                assert self.offsets.setdefault(each.id, offset) == offset, "an offset has changed"
            found += [each.record for each in page]
            after = page.through
        return found

    @invariant()
    def both_views_show_what_is_there(self) -> None:
        self.release_in_the_log()
        for _, log in self.views:
            assert self.run(self.read_all(log, 0)) == self.alive(self.there)
            stats = self.run(log.stats())
            assert stats.delayed == len(self.delayed)
            assert stats.last >= self.handed_out, "the end has moved back"
            self.handed_out = stats.last
        assert len(set(self.offsets.values())) == len(self.offsets), "an offset was used again"

    def teardown(self) -> None:
        self.close()
        self.loop.close()


def attack(make_place: Callable[[], Place], examples: int) -> None:
    """Each run of the machine has a log of its own."""

    class Here(LogMachine):
        def __init__(self) -> None:
            super().__init__()
            self.place = make_place()

    run_state_machine_as_test(Here, settings=settings(max_examples=examples, stateful_step_count=25, deadline=None))


@pytest.mark.parametrize("examples", [15, pytest.param(500, marks=pytest.mark.torture)])
def test_the_log_in_sqlite_does_what_its_model_does(tmp_path: Path, examples: int):
    """Appends of all kinds, time that goes on and back, upkeep, reopening: both views show what the model has."""
    attack(lambda: sqlite_place(Path(mkdtemp(dir=tmp_path))), examples)


@pytest.mark.needs_server
@pytest.mark.parametrize("examples", [3, pytest.param(100, marks=pytest.mark.torture)])
def test_the_log_in_postgresql_does_what_its_model_does(postgres_server: PostgresqlServer, examples: int):
    """The same there."""
    attack(lambda: Place(postgres_server.url(), f"orders_{uuid4().hex[:12]}"), examples)
