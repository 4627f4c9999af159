"""The limits alone, on a time that the test moves."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from seamline.kernel.settings import MeshRules
from seamline.mesh.balance import Endpoint, Replica, Replicas
from seamline.mesh.limits import CircuitBreaker, ConcurrencyLimit, RetryBudget


class Service:
    """``workers`` that each take ``seconds`` a call, a queue before them, and callers who wait ``patience_s``."""

    def __init__(self, limit: ConcurrencyLimit | None, workers: int, seconds: float, patience_s: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self.patience_s = patience_s
        self.free = [0.0] * workers
        self.ends: list[tuple[float, float]] = []
        self.lot = random.Random(5)
        self.now = 0.0

    def run(self, per_s: float, for_s: float) -> tuple[int, int, int]:
        """Offer calls at a rate; how many were answered in time, answered late, refused."""
        good = late = refused = 0
        until = self.now + for_s
        while self.now < until:
            self.now += self.lot.expovariate(per_s)
            while self.ends and self.ends[0][0] <= self.now:
                self._end()
            if self.limit is not None and not self.limit.admit(1):
                refused += 1
                continue
            begins = max(heapq.heappop(self.free), self.now)
            ends = begins + self.seconds * self.lot.uniform(0.8, 1.2)
            heapq.heappush(self.free, ends)
            heapq.heappush(self.ends, (ends, self.now))
            if ends - self.now <= self.patience_s:
                good += 1
            else:
                late += 1
        return good, late, refused

    def _end(self) -> None:
        ended, began = heapq.heappop(self.ends)
        if self.limit is not None:
            self.limit.release(ended - began)


@pytest.mark.parametrize(("workers", "seconds"), [(1, 0.001), (50, 0.02)])
def test_three_times_too_much_work_keeps_goodput_high(workers: int, seconds: float):
    """With the limit most of the capacity answers in time under a lasting overload; without it nearly nothing does."""
    capacity = workers / seconds
    guarded = Service(ConcurrencyLimit(), workers, seconds, patience_s=0.1)
    guarded.run(capacity * 0.5, 5)
    guarded.run(capacity * 3, 20)  # it learns, and it must not drift however long the overload lasts
    good, _, refused = guarded.run(capacity * 3, 20)
    assert good > 0.85 * capacity * 20
    assert refused > 1.5 * capacity * 20

    bare = Service(None, workers, seconds, patience_s=0.1)
    bare.run(capacity * 3, 20)
    good, _, _ = bare.run(capacity * 3, 20)
    assert good < 0.05 * capacity * 20


def test_an_overload_from_the_first_moment_is_learned():
    """Even where the service was never seen at ease, its queue is found and cut."""
    capacity = 1000
    service = Service(ConcurrencyLimit(), 1, 0.001, patience_s=0.1)
    service.run(capacity * 3, 60)
    good, _, _ = service.run(capacity * 3, 20)
    assert good > 0.8 * capacity * 20


def test_after_the_overload_nothing_is_refused():
    """Within seconds of usual load every call is admitted again."""
    limit = ConcurrencyLimit()
    service = Service(limit, 50, 0.02, patience_s=0.1)
    service.run(7500, 20)
    service.run(1000, 5)
    assert service.run(1000, 5)[2] == 0


def test_a_service_that_has_become_slower_for_good_is_not_throttled():
    """Ten times the latency at an easy load is the new normal, not a queue."""
    service = Service(ConcurrencyLimit(), 1000, 0.01, patience_s=10)
    service.run(2000, 5)
    service.seconds = 0.1
    service.run(2000, 60)
    assert service.run(2000, 10)[2] < 200


def test_calls_that_never_ran_teach_nothing():
    """A flood of malformed calls must not make honest ones look slow."""
    limit = ConcurrencyLimit()
    for _ in range(1000):
        assert limit.admit(1)
        limit.release(None)
    assert limit.inflight == 0
    before = limit.limit
    for _ in range(2000):
        for _ in range(200):
            limit.admit(2)
        for _ in range(limit.inflight):
            limit.release(0.01)
    assert limit.limit >= before


def test_sheddable_goes_before_normal_before_critical():
    """Each priority fills its share of the limit and no more."""
    limit = ConcurrencyLimit(100)
    admitted = [sum(limit.admit(priority) for _ in range(200)) for priority in (0, 1, 2)]
    assert admitted == [70, 20, 10]


def test_retries_are_a_share_of_the_calls():
    """A thousand calls with a budget of a fifth pay for two hundred retries, beyond what time gives."""
    budget = RetryBudget(0.2, 0)
    for _ in range(400):
        budget.call()
    assert sum(budget.take(0.0) for _ in range(1000)) == 80
    assert not budget.take(1000.0)


def test_a_few_retries_a_second_are_always_allowed():
    """A quiet edge may retry, and what it saves up is bounded."""
    budget = RetryBudget(0.0, 10, now=0.0)
    assert sum(budget.take(0.0) for _ in range(100)) == 10
    assert sum(budget.take(1.0) for _ in range(100)) == 10
    assert sum(budget.take(10_000.0) for _ in range(1000)) == 200


def test_time_that_stands_still_or_runs_back_earns_nothing():
    """A retry budget cannot be cheated by the clock."""
    budget = RetryBudget(0.0, 10, now=100.0)
    assert sum(budget.take(100.0) for _ in range(20)) == 10
    assert not budget.take(50.0)


def by_port(replicas: Replicas) -> dict[int, Replica]:
    return {e.port: r for e, r in replicas._all.items()}  # pyright: ignore[reportPrivateUsage]


def test_peak_ewma_jumps_up_and_forgets_slowly():
    """One slow answer counts at once; many quick ones are needed to forget it."""
    replica = Replica(Endpoint("h", 1))
    start = replica._stamp  # pyright: ignore[reportPrivateUsage]
    replica.observe(start, 0.001)
    replica.observe(start, 0.5)
    assert replica.latency_s == 0.5
    replica.observe(start + 0.1, 0.001)
    assert 0.45 < replica.latency_s < 0.5
    replica.observe(start + 60, 0.001)
    assert replica.latency_s < 0.01


def test_cost_grows_with_calls_under_way_and_shrinks_with_weight_and_silence():
    """The cost is latency times load over weight; a replica that was not asked is forgiven."""
    slow, heavy = Replica(Endpoint("h", 1)), Replica(Endpoint("h", 2, weight=4))
    now = slow._stamp  # pyright: ignore[reportPrivateUsage]
    slow.observe(now, 0.1)
    heavy.observe(now, 0.1)
    assert slow.cost(now) == pytest.approx(4 * heavy.cost(now), rel=0.01)
    idle = slow.cost(now)
    slow.inflight = 3
    assert slow.cost(now) == pytest.approx(4 * idle)
    assert slow.cost(now + 60) < idle / 50


def test_two_choices_prefer_the_quick_and_starve_nobody():
    """Of three replicas the slow one is chosen only when it is not compared with a quick one."""
    replicas = Replicas()
    replicas.replace([Endpoint("h", port) for port in (1, 2, 3)])
    found = by_port(replicas)
    now = found[1]._stamp  # pyright: ignore[reportPrivateUsage]
    found[1].observe(now, 1.0)
    assert all(p is not found[1] for p in (replicas.pick(now, {}) for _ in range(300)))
    assert any(p is found[1] for p in (replicas.pick(now + 200, {}) for _ in range(300)))


def test_a_replica_that_says_when_it_has_room_is_left_alone_until_then():
    """Where another has room; where none has, a call may as well be tried. It is believed for some seconds at most."""
    replicas = Replicas()
    replicas.replace([Endpoint("h", port) for port in (1, 2)])
    found = by_port(replicas)
    now = found[1]._stamp  # pyright: ignore[reportPrivateUsage]
    found[1].busy(now, 2.0)
    assert {replicas.pick(now + 1, {}) for _ in range(50)} == {found[2]}
    found[2].busy(now + 1, 1000.0)
    assert {replicas.pick(now + 1.5, {}) for _ in range(50)} <= {found[1], found[2]}
    assert {replicas.pick(now + 2.5, {}) for _ in range(50)} == {found[1]}
    assert found[2].has_room(now + 6.1)
    assert not found[1].ejected(now + 1), "it is well"


def test_what_others_ask_of_a_replica_counts_for_a_while():
    """By the replica's own word; what we ask of it ourselves is not counted twice, and an old word is forgotten."""
    replica = Replica(Endpoint("h", 1))
    now = replica._stamp  # pyright: ignore[reportPrivateUsage]
    replica.inflight = 3
    alone = replica.cost(now)
    replica.told(now, 11)
    assert replica.cost(now) == pytest.approx(alone * 12 / 4)
    replica.told(now, 2)
    assert replica.cost(now) == alone
    replica.told(now, 11)
    later = now + 60
    replica._stamp = later  # pyright: ignore[reportPrivateUsage]
    assert replica.cost(later) == alone


def test_streams_of_very_uneven_length_are_spread_evenly():
    """One in twenty lasts a hundred times as long; no replica has many more under way than another for long."""
    lot = random.Random(7)
    replicas = Replicas()
    replicas.replace([Endpoint("h", port) for port in range(4)])
    found = by_port(replicas)
    now = found[0]._stamp  # pyright: ignore[reportPrivateUsage]
    ends: list[tuple[float, int, Replica]] = []
    uneven = drawn_unevenly = 0.0
    blind = [0] * 4
    blind_ends: list[tuple[float, int]] = []
    steps = 4000
    for step in range(steps):
        now += 0.05
        while ends and ends[0][0] <= now:
            heapq.heappop(ends)[2].inflight -= 1
        while blind_ends and blind_ends[0][0] <= now:
            blind[heapq.heappop(blind_ends)[1]] -= 1
        lasts_s = 0.2 * (100 if lot.random() < 0.05 else 1)
        replica = replicas.pick(now, {})
        assert replica is not None
        replica.inflight += 1
        replica.observe(now, 0.02)
        heapq.heappush(ends, (now + lasts_s, step, replica))
        drawn = lot.randrange(4)
        blind[drawn] += 1
        heapq.heappush(blind_ends, (now + lasts_s, drawn))
        uneven += max(each.inflight for each in found.values()) - min(each.inflight for each in found.values())
        drawn_unevenly += max(blind) - min(blind)
    assert uneven / steps < 2.5
    assert uneven < drawn_unevenly / 2


def test_no_more_than_a_share_of_the_replicas_is_left_out():
    """With half as the most, the second of three failing replicas stays in."""
    rules = MeshRules(outlier_failures=1, outlier_eject_s=10, outlier_eject_max_ratio=0.5)
    replicas = Replicas()
    replicas.replace([Endpoint("h", port) for port in (1, 2, 3)])
    found = by_port(replicas)
    for port in (1, 2):
        found[port].failed(100.0, rules, replicas.may_eject(100.0, rules))
    assert [found[p].ejected(101.0) for p in (1, 2, 3)] == [True, False, False]
    assert not found[1].ejected(111.0)


OPEN_S, WINDOW_S = 5.0, 10.0


class BreakerMachine(RuleBasedStateMachine):
    """Any order of admissions, outcomes and time: the breaker does what a list of outcomes says it should."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = CircuitBreaker(0.5, 4, WINDOW_S, OPEN_S)
        self.now = 0.0
        self.state = "closed"
        self.opened = 0.0
        self.window: list[tuple[int, bool]] = []
        self.tickets: list[tuple[int, str, int]] = []  # ticket, state when it was given, era
        self.era = 0

    @rule(seconds=st.floats(0, 7))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def admit(self) -> None:
        ticket = self.breaker.admit(self.now)
        if self.state == "closed":
            assert ticket is not None
        elif self.state == "probing" or self.now - self.opened < OPEN_S:
            assert ticket is None
        else:
            assert ticket is not None
            self.state = "probing"
            self.era += 1
        if ticket is not None:
            self.tickets.append((ticket, self.state, self.era))

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), ok=st.booleans())
    def end(self, data: st.DataObject, ok: bool) -> None:
        ticket, _, era = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        self.breaker.record(ticket, self.now, ok)
        if era != self.era:
            return
        if self.state == "probing":
            self.state, self.opened = ("closed", 0.0) if ok else ("open", self.now)
            self.window, self.era = [], self.era + 1
            return
        self.window.append((int(self.now), ok))
        recent = [fine for at, fine in self.window if at > int(self.now) - 10]
        if not ok and len(recent) >= 4 and recent.count(False) * 2 >= len(recent):
            self.state, self.opened, self.window, self.era = "open", self.now, [], self.era + 1

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def come_to_nothing(self, data: st.DataObject) -> None:
        ticket, _, era = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        self.breaker.forget(ticket)
        if era == self.era and self.state == "probing":
            self.state = "open"  # another probe may go at once
            self.opened = min(self.opened, self.now - OPEN_S)

    @invariant()
    def agrees(self) -> None:
        assert (self.breaker.opened_at is None) == (self.state == "closed")


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_the_breaker_keeps_no_list_of_calls():
    """A million calls in the window cost ten numbers."""
    breaker = CircuitBreaker(0.5, 20, 10, 5)
    for number in range(50_000):
        breaker.record(0, number / 5000, ok=number % 3 > 0)
    assert len(breaker._slices) <= CircuitBreaker.SLICES  # pyright: ignore[reportPrivateUsage]
