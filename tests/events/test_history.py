"""The history checker, on histories with planted faults, and on each broker under kills, pauses and restarts."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import inspect, select
from tests.events.conformance import TOPIC, Arena, persistently, record
from tests.events.history import Attempt, History, Seen, violations
from tests.events.history_consumer import Task, effects

from seamline.events.record import Record
from seamline.events.transport import Transport
from seamline.kernel.store import Database

KEYS = 12
STALE_S = 2.5
"""Longer than the leases of the consumers live."""
_LINE = re.compile(r"\d+-[0-9a-f]{8} p\d-\d+")
PATIENCE_S = 60.0


def _sound(count: int = 6, keys: int = 2) -> History:
    """Everything was published, acknowledged, handed out and took effect."""
    attempts = [Attempt(f"e{number}", f"k{number % keys}") for number in range(count)]
    seen = [Seen(*attempt) for attempt in attempts]
    return History(attempts, {attempt.id for attempt in attempts}, list(seen), list(seen))


# The checker itself


def test_a_sound_history_has_no_violations():
    """Nothing is made up: also with redeliveries, and with keys that overtake one another."""
    history = _sound()
    history.deliveries += history.deliveries[2:4]
    history.effects = [history.effects[place] for place in (1, 0, 3, 2, 5, 4)]
    assert violations(history) == []


def test_a_lost_event_is_found():
    """An acknowledged event without effect is lost, and it is told whether anybody had it."""
    history = _sound()
    del history.effects[3]
    assert violations(history) == ["lost: e3 was acknowledged, and was handed out, but has no effect"]
    del history.deliveries[3]
    assert violations(history) == ["lost: e3 was acknowledged, and was never handed out"]


def test_a_swapped_pair_is_found():
    """Two events of one key that took effect the other way round."""
    history = _sound()
    history.effects[2], history.effects[4] = history.effects[4], history.effects[2]
    (found,) = violations(history)
    assert found == "swapped: e2 took effect after e4, which was published later (key 'k0')"


def test_a_doubled_effect_is_found():
    """An event that took effect again, at once or much later."""
    for place in (1, 5):
        history = _sound()
        history.effects.insert(place, history.effects[0])
        assert "doubled: e0 took effect 2 times" in violations(history)


def test_an_effect_of_nothing_is_found():
    """An effect, or a delivery, of an event that nobody published, or with another key."""
    history = _sound()
    history.effects.append(Seen("ghost", "k0"))
    history.deliveries.append(Seen("e0", "k1"))
    assert violations(history) == [
        "invented: ghost has an effect, and nobody published it",
        "invented: e0 has a delivery with the key 'k1', not 'k0'",
    ]


def test_what_was_not_acknowledged_may_be_there_or_not():
    """The producer does not know, and either is fine; but once it is there, order holds for it too."""
    history = _sound()
    history.acknowledged -= {"e2", "e3"}
    assert violations(history) == []
    del history.effects[2]
    assert violations(history) == []
    history.effects.append(Seen("e2", "k0"))
    assert [each.partition(":")[0] for each in violations(history)] == ["swapped"]


@given(st.data())
def test_any_one_fault_is_found(data: st.DataObject):
    """Whatever the history, dropping, doubling or moving one effect is seen."""
    history = _sound(data.draw(st.integers(4, 40)), data.draw(st.integers(1, 4)))
    assert violations(history) == []
    place = data.draw(st.integers(0, len(history.effects) - 1))
    effect = history.effects[place]
    fault = data.draw(st.sampled_from(["lost", "doubled", "swapped"]))
    if fault == "lost":
        del history.effects[place]
    elif fault == "doubled":
        history.effects.insert(data.draw(st.integers(0, len(history.effects))), effect)
    else:
        others = [each for each in history.effects if each.key == effect.key and each != effect]
        if not others:
            return
        other = history.effects.index(data.draw(st.sampled_from(others)))
        history.effects[place], history.effects[other] = history.effects[other], history.effects[place]
    assert fault in {each.partition(":")[0] for each in violations(history)}


# The brokers


class Consumer:
    """A consumer process, to be killed."""

    def __init__(self, task: Task) -> None:
        words = [sys.executable, "-m", "tests.events.history_consumer", msgspec.json.encode(task).decode()]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def send(self, how: signal.Signals) -> None:
        assert self.process.poll() is None, "a consumer ended by itself; see its errors above"
        self.process.send_signal(how)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


class Trial:
    """Producers, consumer processes and troubles on one broker, and the history of it."""

    def __init__(self, arena: Arena, folder: Path, stack: ExitStack, seed: int) -> None:
        self.history = History()
        self.lots = random.Random(seed)
        self._arena = arena
        self._stack = stack
        self._database = Database(f"sqlite:///{folder}/effects.sqlite3", "emails")
        self._seen = folder / "deliveries"
        self._seen.touch()
        self._task = Task(
            arena.broker.url(), arena.app, f"sqlite:///{folder}/effects.sqlite3", str(self._seen),
            arena.settings.partitions,
        )  # fmt: skip
        self._consumers = [self._consumer(), self._consumer()]
        self._count = 0

    def _consumer(self) -> Consumer:
        consumer = Consumer(self._task)
        self._stack.callback(consumer.kill)
        return consumer

    async def produce(self, transport: Transport, producer: int, until: int) -> None:
        """Publish as the relay does: in order, a batch again until it is acknowledged. Keys are the producer's own."""
        while self._count < until:
            batch: list[Record] = []
            for _ in range(self.lots.randint(1, 12)):
                self._count += 1
                batch.append(record(self._count, f"p{producer}-{self.lots.randrange(KEYS)}"))
            self.history.attempts += (Attempt(each.id, each.key) for each in batch)
            await persistently(partial(transport.publish, TOPIC, batch))
            self.history.acknowledged |= {each.id for each in batch}

    async def trouble(self, kinds: str, every: int, until: int) -> None:
        """One trouble after each ``every`` effects: b(roker killed), c(onsumer killed), p(aused consumer)."""
        for place, kind in enumerate(kinds):
            await self._effects(min((place + 1) * every, until // 2))
            if kind == "b":
                self._arena.broker.kill()
                await asyncio.sleep(0.2)
                self._arena.broker.start()
            elif kind == "c":
                number = self.lots.randrange(2)
                self._consumers[number].kill()
                self._consumers[number] = self._consumer()
            else:
                paused = self._consumers[self.lots.randrange(2)]
                paused.send(signal.SIGSTOP)
                await asyncio.sleep(STALE_S)
                paused.send(signal.SIGCONT)

    async def _effects(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.history.effects) < count:
                await asyncio.sleep(0.05)
                await self.look()

    async def look(self) -> None:
        async with self._database.read() as connection:
            if not await connection.run_sync(lambda sync: inspect(sync).has_table(effects.name)):
                return
            rows = await connection.execute(select(effects.c.id, effects.c.key).order_by(effects.c.place))
            self.history.effects = [Seen(*row) for row in rows]

    async def run(self, kinds: str, events: int) -> History:
        async with self._database:
            # Where something was lost, waiting for it ends: the history tells what.
            with suppress(TimeoutError):
                await self._work(kinds, events)
            for consumer in self._consumers:
                consumer.kill()
            await self.look()
        lines = self._seen.read_text(encoding="utf-8").splitlines()
        # A process that was killed may have left half a line.
        self.history.deliveries = [Seen(*line.split(" ")) for line in lines if _LINE.fullmatch(line)]
        return self.history

    async def _work(self, kinds: str, events: int) -> None:
        transports = [await self._arena.join() for _ in range(3)]
        producers = (self.produce(transport, number, events) for number, transport in enumerate(transports))
        await asyncio.gather(*producers, self.trouble(kinds, events // (len(kinds) + 2), events))
        async with asyncio.timeout(PATIENCE_S):
            while self.history.missing():  # another process writes what is waited for
                await asyncio.sleep(0.1)
                await self.look()


async def _trial(arena: Arena, folder: Path, *, kinds: str, events: int, seed: int) -> History:
    with ExitStack() as stack:
        return await Trial(arena, folder, stack, seed).run(kinds, events)


@pytest.mark.needs_server
@pytest.mark.wants("restarts")
async def test_a_broker_keeps_its_promises_under_kills_and_pauses(arena: Arena, tmp_path: Path):
    """Broker killed twice, a consumer killed and one paused beyond its lease, while three producers publish: no
    acknowledged event is lost, order holds within every key, and every effect is there once."""
    history = await _trial(arena, tmp_path, kinds="bcpb", events=900, seed=1)
    assert violations(history) == []
    assert len(history.acknowledged) >= 900


@pytest.mark.torture
@pytest.mark.needs_server
@pytest.mark.wants("restarts")
@pytest.mark.parametrize("seed", range(5))
async def test_a_broker_keeps_its_promises_for_long(arena: Arena, tmp_path: Path, seed: int):
    """The same with forty troubles in an order drawn by lot, and 20,000 events."""
    kinds = "".join(random.Random(seed).choices("bcp", k=40))
    history = await _trial(arena, tmp_path, kinds=kinds, events=20_000, seed=seed)
    assert violations(history) == []
