"""Replicas of a language model are chosen by what they have to read and to say, not by how many calls they have."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamline import Contract, Workers
from seamline.kernel.clock import ManualClock
from seamline.kernel.wire import frames
from seamline.kernel.wire.frames import Ahead
from seamline.mesh import balance
from seamline.mesh.balance import Endpoint, Replica, Replicas
from seamline.mesh.service import CountsTokens
from seamline.models.chat import Chat, ChatAnswer, ChatChunk, ChatRequest, Message, Usage
from seamline.models.runtimes.chat_model import LlamaChat
from seamline.models.runtimes.scripted import Rule, Scripted
from seamline.models.serving.engine import Engine
from seamline.models.serving.served import served
from seamline.models.serving.tokens import TokenLoad, Work
from seamline.module.models import ModelType

PLACES, CALLERS, CALLS = 4, 3, 400
TOKEN_S = 0.02
TELL_EVERY = 5
"""Steps."""
NOTHING = {"unread": 0, "unsaid": 0}
Lies = dict[str, Ahead | None]
SHORT, LONG = (64, 5, 30), (1024, 300, 700)
"""The limit that is asked for, and between which lengths answers are."""


class Call:
    """One question on its way, and how it goes on."""

    def __init__(self, rng: random.Random, kind: tuple[int, int, int], now: float) -> None:
        limit, least, most = kind
        self.request = ChatRequest(prompt="x" * 200, tokens_max=limit)
        self.tokens = rng.randint(least, most)
        self.said = 0
        self.asked = now
        self.begun = -1.0
        self.work: Work | None = None


class Machine:
    """A replica that makes a few answers at once, a token each in every step; the others wait."""

    def __init__(self, clock: ManualClock, name: str, port: int) -> None:
        self.endpoint = Endpoint("127.0.0.1", port, workload=name)
        self.load = TokenLoad(PLACES, now=clock.monotonic)
        self.live: list[Call] = []
        self.waiting: deque[Call] = deque()

    def take(self, call: Call) -> None:
        call.work = self.load.begin((call.request,))
        self.waiting.append(call)

    def step(self, now: float) -> tuple[list[Call], list[Call]]:
        """Those that have begun, and those that have ended."""
        begun: list[Call] = []
        while self.waiting and len(self.live) + len(begun) < PLACES:
            call = self.waiting.popleft()
            call.begun = now
            begun.append(call)
        self.live += begun
        ended: list[Call] = []
        for call in self.live:
            assert call.work is not None
            call.work.passed(ChatChunk(text="a"))
            call.said += 1
            if call.said == call.tokens:
                said = Usage(input_tokens=50, output_tokens=call.tokens)
                call.work.passed(ChatChunk(finish="stop", usage=said))
                call.work.end()
                ended.append(call)
        self.live = [call for call in self.live if call.said < call.tokens]
        return begun, ended


class Caller:
    """One process that calls: what it knows of replicas is its own, and what they tell."""

    def __init__(self, machines: list[Machine]) -> None:
        self.replicas = Replicas()
        self.replicas.replace(machine.endpoint for machine in machines)

    def known(self, machine: Machine) -> Replica:
        found = self.replicas.named(machine.endpoint.workload)
        assert found is not None
        return found


class World:
    """Callers, replicas, and the time."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch, *, tells: bool, lies: Lies) -> None:
        self.rng, self.clock = random.Random(seed), ManualClock()
        monkeypatch.setattr(balance, "monotonic", self.clock.monotonic)
        monkeypatch.setattr(random, "sample", self.rng.sample)
        self.machines = [Machine(self.clock, f"m{place}", 1000 + place) for place in range(3)]
        self.callers = [Caller(self.machines) for _ in range(CALLERS)]
        self.given = dict.fromkeys((machine.endpoint.workload for machine in self.machines), 0)
        self.waited: list[float] = []
        self.owners: dict[Call, Replica] = {}
        self._tells = tells
        self._lies = lies

    def ask(self, caller: Caller, kind: tuple[int, int, int]) -> None:
        now = self.clock.monotonic()
        picked = caller.replicas.pick(now, {})
        assert picked is not None
        call = Call(self.rng, kind, now)
        self.owners[call] = picked
        picked.inflight += 1
        self.given[picked.endpoint.workload] += 1
        next(machine for machine in self.machines if machine.endpoint is picked.endpoint).take(call)

    def step(self) -> None:
        now = self.clock.monotonic()
        for machine in self.machines:
            begun, ended = machine.step(now)
            for call in begun:
                self.owners[call].observe(now, now + TOKEN_S - call.asked)
            for call in ended:
                self.owners.pop(call).inflight -= 1
                self.waited.append(call.begun - call.asked)
        self.clock.advance(TOKEN_S)

    def tell(self) -> None:
        now = self.clock.monotonic()
        for machine in self.machines:
            ahead = machine.load.ahead()
            if machine.endpoint.workload in self._lies:
                ahead = self._lies[machine.endpoint.workload]
            for caller in self.callers:
                under_way = len(machine.live) + len(machine.waiting)
                caller.known(machine).told(now, under_way, ahead if self._tells else None)

    def run(self) -> World:
        """For a minute, and until all are answered."""
        arrivals = sorted((self.rng.uniform(0.5, 60), self.rng.random() < 0.06) for _ in range(CALLS))
        waiting, steps = deque(arrivals), 0
        while waiting or self.owners:
            while waiting and waiting[0][0] <= self.clock.monotonic():
                self.ask(self.rng.choice(self.callers), LONG if waiting.popleft()[1] else SHORT)
            if steps % TELL_EVERY == 0:
                self.tell()
            self.step()
            steps += 1
        return self


def waits(monkeypatch: pytest.MonkeyPatch, *, tells: bool, lies: Lies | None = None) -> World:
    """Four worlds' waits in one, in order."""
    worlds = [World(seed, monkeypatch, tells=tells, lies=lies or {}).run() for seed in range(4)]
    worlds[0].waited = sorted(wait for world in worlds for wait in world.waited)
    worlds[0].given = {name: sum(world.given[name] for world in worlds) for name in worlds[0].given}
    return worlds[0]


def p99(world: World) -> float:
    return world.waited[int(len(world.waited) * 0.99)]


def test_calls_wait_less(monkeypatch: pytest.MonkeyPatch):
    """One call of seventeen wants hundreds of tokens: by tokens the longest waits for a place are less than half."""
    by_calls, by_tokens = waits(monkeypatch, tells=False), waits(monkeypatch, tells=True)
    assert len(by_calls.waited) == len(by_tokens.waited) == 4 * CALLS
    assert p99(by_tokens) < 0.5 * p99(by_calls)
    assert sum(by_tokens.waited) < 0.6 * sum(by_calls.waited)


def test_few_long_answers_are_more_than_many_short_ones(monkeypatch: pytest.MonkeyPatch):
    """Four that go on for long take all places; six that are nearly over do not."""
    world = World(1, monkeypatch, tells=True, lies={})
    long, short, _ = world.machines
    world.machines = [long, short]
    for caller in world.callers:
        caller.replicas.replace([long.endpoint, short.endpoint])
    caller = world.callers[0]
    for machine in (long, short):
        for kind in (SHORT, LONG):
            call = Call(world.rng, kind, 0.0)
            caller.known(machine).inflight += 1
            world.owners[call] = caller.known(machine)
            machine.take(call)
    while world.owners:
        world.step()
    for machine, kind, count in ((long, LONG, 4), (short, SHORT, 6)):
        for _ in range(count):
            machine.take(call := Call(world.rng, kind, world.clock.monotonic()))
            world.owners[call] = caller.known(machine)
            caller.known(machine).inflight += 1
    for tells, chosen in ((False, long), (True, short)):
        world._tells = tells  # pyright: ignore[reportPrivateUsage]
        world.tell()
        picked = caller.replicas.pick(world.clock.monotonic(), {})
        assert picked is not None
        assert picked.endpoint is chosen.endpoint


@pytest.mark.parametrize("lie", [Ahead(0.0, 0.0, 0.0), None], ids=["nothing to do", "silent"])
def test_who_lies_does_not_get_everything(monkeypatch: pytest.MonkeyPatch, lie: Ahead | None):
    """A replica that claims to have nothing to do, or says nothing, is asked more than the others, and no more than
    three times as much as its share; all are answered."""
    world = waits(monkeypatch, tells=True, lies={"m0": lie})
    assert len(world.waited) == 4 * CALLS
    assert world.given["m0"] < 0.6 * sum(world.given.values())
    assert min(world.given.values()) > 0.15 * sum(world.given.values())


def test_who_claims_to_be_busy_for_ever_is_asked_when_the_others_are(monkeypatch: pytest.MonkeyPatch):
    """More than 30 s ahead are not believed."""
    clock = ManualClock()
    monkeypatch.setattr(balance, "monotonic", clock.monotonic)
    liar, other = (Replica(Endpoint("127.0.0.1", port)) for port in (1, 2))
    liar.told(0.0, 1, Ahead(4000.0, 4000.0, 4000.0))
    assert liar.ahead_s(0.0) == Replica.AHEAD_S_MAX
    other.told(0.0, 1, Ahead(20.0, 1.0, 1.0))
    other.inflight = 20
    assert liar.ahead_s(0.0) == other.ahead_s(0.0) == Replica.AHEAD_S_MAX


def test_what_was_told_is_forgotten(monkeypatch: pytest.MonkeyPatch):
    """After a moment, with the next telling that says nothing of it, and with the replica."""
    clock = ManualClock()
    monkeypatch.setattr(balance, "monotonic", clock.monotonic)
    endpoint = Endpoint("127.0.0.1", 1)
    replicas = Replicas()
    replicas.replace([endpoint])
    replica = replicas.pick(0.0, {})
    assert replica is not None
    replica.told(0.0, 9, Ahead(3.0, 1.0, 1.0))
    assert replica.ahead_s(Replica.OTHERS_S) == 4.0
    assert replica.ahead_s(Replica.OTHERS_S + 0.001) is None
    assert replica.cost(Replica.OTHERS_S + 0.001) < replica.cost(0.0)
    replica.told(5.0, 9, None)
    assert replica.ahead_s(5.0) is None
    replica.told(5.0, 9, Ahead(3.0, 1.0, 1.0))
    replicas.replace([])
    replicas.replace([endpoint])
    again = replicas.pick(5.0, {})
    assert again is not None
    assert again is not replica
    assert again.ahead_s(5.0) is None


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(-3, 3)),
        st.tuples(st.just("time"), st.floats(0, 5)),
        st.tuples(st.just("seen"), st.floats(0, 100)),
        st.tuples(st.just("told"), st.binary(max_size=16)),
        st.tuples(st.just("told"), st.binary(min_size=12, max_size=12)),
    ),
    max_size=30,
)


@given(MOVES, st.integers(0, 0xFFFF_FFFF))
def test_a_cost_is_a_cost_whatever_is_told(moves: list[tuple[str, Any]], under_way: int):
    """Finite, above zero, and bounded by what is believed and what was seen. Bytes that mean nothing say nothing."""
    replica = Replica(Endpoint("127.0.0.1", 1))
    now = replica._stamp  # pyright: ignore[reportPrivateUsage]
    for kind, value in moves:
        match kind:
            case "call":
                replica.inflight = max(replica.inflight + value, 0)
            case "time":
                now += value
            case "seen":
                replica.observe(now, value)
            case _:
                ahead = frames.read_ahead(value)
                assert (ahead is None) == (len(value) != 12)
                replica.told(now, under_way, ahead)
        assert 0 < replica.cost(now) < math.inf
        ahead_s = replica.ahead_s(now)
        assert ahead_s is None or 0 < ahead_s <= max(
            Replica.AHEAD_S_MAX, 100 * (replica.inflight + 1) / Replica.BELIEVED
        )


@given(st.floats(0, 1e12), st.floats(0, 1e12), st.floats(0, 1e12), st.integers(1, 0xFFFF_FFFF))
def test_what_is_told_fits_into_its_frame(wait_s: float, serve_s: float, each_s: float, under_way: int):
    """To the microsecond, and cut at what has room."""
    heard: list[tuple[int, int, Any]] = []
    frames.FrameReader(partial(_note, heard), partial(_note, heard)).feed(
        frames.told_frame(under_way, Ahead(wait_s, serve_s, each_s))
    )
    ((kind, stream, payload),) = heard
    assert (kind, stream) == (frames.PONG, under_way)
    read = frames.read_ahead(payload)
    assert read is not None
    for told, sent in zip(read, (wait_s, serve_s, each_s), strict=True):
        assert told == pytest.approx(min(sent, 0xFFFF_FFFF / 1e6), abs=2e-6)


def _note(heard: list[tuple[int, int, Any]], kind: int, stream: int, payload: Any) -> None:
    heard.append((kind, stream, payload))


WORKS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "piece", "usage", "whole", "end", "time"]),
        st.integers(0, 7),
        st.integers(-5, 100_000),
    ),
    max_size=60,
)


@given(WORKS, st.integers(0, 5), st.integers(0, 4096))
def test_load_is_never_below_zero_and_ends_with_the_work(moves: list[tuple[str, int, int]], places: int, limit: int):
    """Whatever engines count and however calls end; what is unsaid is never more than the limit leaves."""
    clock = ManualClock()
    load = TokenLoad(places, limit, now=clock.monotonic)
    works: list[Work] = []
    for kind, which, amount in moves:
        if kind == "begin":
            works.append(load.begin((ChatRequest(prompt="x" * which * 100, tokens_max=max(amount, 0)),)))
        elif kind == "time":
            clock.advance(abs(amount) / 1000)
        elif works:
            work = works[which % len(works)]
            usage = Usage(input_tokens=amount, output_tokens=amount // 2, cached_input_tokens=which)
            match kind:
                case "piece":
                    work.passed(ChatChunk(text="a"))
                    work.read_on()
                case "usage":
                    work.passed(ChatChunk(finish="stop", usage=usage))
                case "whole":
                    work.answered(ChatAnswer(message=Message(role="assistant"), usage=usage))
                case _:
                    work.end()
        assert min(load.stats().values()) >= 0
        for work in works:
            assert 0 <= work.unsaid <= (work.limit or math.inf)
        ahead = load.ahead()
        assert ahead is None or all(0 <= seconds < math.inf for seconds in ahead)
    for work in works:
        work.end()
    assert load.stats() == NOTHING
    ahead = load.ahead()
    assert ahead is None or ahead.wait_s == 0


def test_a_slow_reader_is_not_a_slow_engine():
    """What is learned of speed leaves out how long the reader had each piece."""
    clock = ManualClock()
    load = TokenLoad(4, now=clock.monotonic)
    for held_s in (0.0, 5.0):
        work = load.begin((ChatRequest(prompt="x"),))
        for _ in range(21):
            clock.advance(0.01)
            work.passed(ChatChunk(text="a"))
            clock.advance(held_s)
            work.read_on()
        work.passed(ChatChunk(finish="stop", usage=Usage(input_tokens=1, output_tokens=21)))
        work.end()
        assert load.say_s.value == pytest.approx(0.01, rel=0.01)


def test_a_prompt_that_is_being_read_is_waited_for_even_where_a_place_is_free():
    """Prompts are read one after the other."""
    clock = ManualClock()
    load = TokenLoad(4, now=clock.monotonic)
    work = load.begin((ChatRequest(prompt="x" * 400),))
    clock.advance(2.0)
    for _ in range(10):
        work.passed(ChatChunk(text="a"))
        clock.advance(0.01)
    work.passed(ChatChunk(finish="stop", usage=Usage(input_tokens=100, output_tokens=10)))
    work.end()
    idle = load.ahead()
    assert idle is not None
    assert idle.wait_s == 0
    load.begin((ChatRequest(prompt="x" * 4000),))
    busy = load.ahead()
    assert busy is not None
    assert busy.wait_s >= 20.0


class Talk(Chat):
    """What the tests ask."""


class Scripted1(Scripted):
    def __init__(self) -> None:
        super().__init__(
            [
                Rule(pattern="fail", answer="one two three four", fails=RuntimeError("no"), fails_after=3),
                Rule(answer="word " * 40),
            ]
        )


class Answers:
    """One version."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __iter__(self) -> Iterator[Engine]:
        return iter((self._engine,))

    async def call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        return await self._engine.call(method, arguments, math.inf)

    def stream(self, method: str, arguments: tuple[Any, ...]) -> Any:
        return self._engine.stream(method, arguments)


async def test_what_serves_a_language_model_counts_its_tokens():
    """Calls and streams alike, and however they end, nothing is left; after the first answers it tells."""

    async def make() -> Scripted1:
        return Scripted1()

    model = ModelType(contract=Talk, cls=Scripted1, version="1", runs_in="loop")
    engine = Engine(model, make, clock=ManualClock())  # time stands still
    await engine.start()
    service = served(Talk, Answers(engine))
    assert isinstance(service, CountsTokens)
    assert isinstance(service, Talk)
    tokens = engine.tokens
    assert tokens is not None
    assert service.seamline_ahead() is None
    async with aclosing(_stream(service, "go on")) as chunks:
        await anext(chunks)
        assert tokens.stats() == {"unread": 0, "unsaid": 63}
    assert tokens.stats() == NOTHING
    assert service.seamline_ahead() is None, "of an answer that nobody heard to its end nothing is learned"
    assert [chunk async for chunk in _stream(service, "speak")][-1].usage is not None
    assert service.seamline_ahead() == (0.0, 0.0, 0.0)
    with pytest.raises(RuntimeError):
        await service.complete(ChatRequest(prompt="fail"))
    await service.complete(ChatRequest(prompt="speak"))
    assert tokens.stats() == NOTHING
    waiting = asyncio.get_running_loop().create_task(service.complete(ChatRequest(prompt="speak")))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert tokens.stats() == NOTHING
    assert engine.stats()["tokens"] == NOTHING
    await engine.stop()


def _stream(service: Talk, prompt: str) -> Any:
    found: AsyncIterator[ChatChunk] = service.stream(ChatRequest(prompt=prompt))
    return found


def test_what_loading_took_is_not_what_reading_takes():
    """A call that waits until the model is loaded teaches nothing of how long prompts are."""
    clock = ManualClock()
    load = TokenLoad(4, now=clock.monotonic)
    for cold, learned in ((True, None), (False, 0.02)):
        work = load.begin((ChatRequest(prompt="x" * 400),), cold=cold)
        clock.advance(60.0 if cold else 2.0)
        work.passed(ChatChunk(text="a"))
        work.passed(ChatChunk(finish="stop", usage=Usage(input_tokens=100, output_tokens=1)))
        work.end()
        assert load.read_s.value == learned


def test_places_are_those_of_the_engine():
    """As many as its class says, in each of its processes, and no more than are let in."""

    def places(**changes: Any) -> int:
        model = ModelType(contract=Talk, cls=LlamaChat, version="1", **changes)
        load = TokenLoad.of(model)
        assert load is not None
        return load.places

    assert places(runs_in="loop") == 8
    assert places(runs_in="thread") == 1
    assert places(runs_in="process", concurrency=8, workers=Workers(count=2)) == 16
    assert TokenLoad.of(ModelType(contract=Words, cls=LlamaChat, version="1")) is None


class Words(Contract):
    async def of(self, text: str) -> int: ...
