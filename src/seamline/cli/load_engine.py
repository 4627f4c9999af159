"""Shoppers, the steps they take, and what came of them.

A scenario is a list of ``(weight, name, step)``. Each shopper takes one step after the other, chosen by
weight. With a rate, steps begin on a fixed timetable and are measured from the time they *should* have
begun, so that a stall of the server is not hidden by shoppers who politely wait (coordinated omission).
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from time import perf_counter as now  # the clock of uvloop ticks in milliseconds
from typing import Any

from seamline.cli.load_client import Browser, ExchangeError, Response, Target

FAILURES_KEPT = 8
REDIRECTS_MAX = 10
PAUSE_AFTER_FAILURE_S = 0.05  # a server that is gone must not be hammered at the speed of refusals
GROWTH = math.log(1.02)


class RequestFailedError(AssertionError):
    """A request was answered with an unexpected status, or not at all."""


class Shopper:
    """One simulated person with cookies and a connection. Steps receive it and may keep notes in it."""

    def __init__(self, browser: Browser, tally: Tally, number: int, seed: int) -> None:
        self.number = number
        self.random = random.Random(seed + number)  # repeatable choices, not secrets
        self.notes: dict[str, Any] = {}
        self._browser = browser
        self._tally = tally

    @property
    def cookies(self) -> dict[str, str]:
        return self._browser.cookies

    async def get(self, path: str, *, expect: int | Sequence[int] | None = None) -> Response:
        """GET a path and follow redirects. Any status below 400, or one of ``expect``, is a success."""
        return await self._visit("GET", path, None, expect)

    async def post(
        self, path: str, form: dict[str, Any] | None = None, *, expect: int | Sequence[int] | None = None
    ) -> Response:
        """POST a form and follow redirects. Any status below 400, or one of ``expect``, is a success."""
        return await self._visit("POST", path, form or {}, expect)

    async def _visit(
        self, method: str, path: str, form: dict[str, Any] | None, expect: int | Sequence[int] | None
    ) -> Response:
        for _ in range(REDIRECTS_MAX + 1):
            response = await self._send(method, path, form, expect)
            onward = self._browser.follow(response)
            if onward is None:
                return response
            if response.status not in (307, 308):
                method, form = "GET", None
            path = onward
        self._tally.failed += 1
        raise RequestFailedError(f"{method} {path}: more than {REDIRECTS_MAX} redirects")

    async def _send(
        self, method: str, path: str, form: dict[str, Any] | None, expect: int | Sequence[int] | None
    ) -> Response:
        tally, resent = self._tally, self._browser.resent
        tally.requests += 1
        tally.flying += 1
        try:
            response = await self._browser.send(method, path, form)
        except ExchangeError as error:
            tally.failed += 1
            raise RequestFailedError(f"{method} {path}: {error}") from None
        finally:
            tally.flying -= 1
            tally.resent += self._browser.resent - resent
        tally.answered(response)
        wanted = (expect,) if isinstance(expect, int) else expect
        if response.status in wanted if wanted is not None else response.status < 400:
            return response
        tally.failed += 1
        begin = " ".join(response.text[:400].split())[:160]
        said = f": {begin}" if begin else ""
        raise RequestFailedError(f"{method} {path}: {response.status} {response.reason}{said}")


Step = Callable[[Shopper], Awaitable[Any]]
Scenario = Sequence[tuple[int, str, Step]]


async def home(shopper: Shopper) -> None:
    await shopper.get("/")


DEFAULT_SCENARIO: Scenario = [(1, "home", home)]


class Latencies:
    """A histogram with buckets that grow by 2 %: constant memory, quantiles within 1 %."""

    def __init__(self) -> None:
        self.count = 0
        self.max_s = 0.0
        self._buckets: dict[int, int] = {}

    def record(self, seconds: float) -> None:
        bucket = int(math.log(max(seconds, 1e-6) * 1e6) / GROWTH)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.count += 1
        self.max_s = max(self.max_s, seconds)

    def merge(self, other: Latencies) -> None:
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        self.count += other.count
        self.max_s = max(self.max_s, other.max_s)

    def quantile_ms(self, fraction: float) -> float | None:
        """The latency that ``fraction`` of the records do not exceed; ``None`` without records."""
        if not self.count:
            return None
        wanted, seen = math.ceil(fraction * self.count), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return min(math.exp((bucket + 0.5) * GROWTH) * 1e-3, self.max_s * 1e3)
        return self.max_s * 1e3


@dataclass(slots=True)
class StepTally:
    """What came of one kind of step."""

    name: str
    taken: int = 0
    failed: int = 0
    latencies: Latencies = field(default_factory=Latencies)


@dataclass(slots=True)
class Failure:
    """One way to fail, with how often and when first."""

    reason: str
    step: str
    first_s: float
    count: int = 1


class Tally:
    """Everything that is counted while the shoppers shop."""

    def __init__(self, names: Sequence[str]) -> None:
        self.requests = 0
        self.failed = 0
        self.resent = 0
        self.flying = 0
        self.received_bytes = 0
        self.statuses: dict[int, int] = {}
        self.steps = {name: StepTally(name) for name in names}
        self.failures: dict[tuple[str, str], Failure] = {}
        self.failed_steps = 0
        self.elapsed_s = 0.0

    def answered(self, response: Response) -> None:
        self.received_bytes += len(response.body)
        self.statuses[response.status] = self.statuses.get(response.status, 0) + 1

    def step_failed(self, step: str, reason: str, at_s: float) -> None:
        self.failed_steps += 1
        self.steps[step].failed += 1
        known = self.failures.get((step, reason))
        if known is not None:
            known.count += 1
        elif len(self.failures) < FAILURES_KEPT:
            self.failures[step, reason] = Failure(reason, step, at_s)

    def overall(self) -> Latencies:
        merged = Latencies()
        for step in self.steps.values():
            merged.merge(step.latencies)
        return merged

    def to_json(self) -> dict[str, Any]:
        rows = [*self.steps.values()]
        return {
            "requests": self.requests,
            "failed": self.failed,
            "failed_steps": self.failed_steps,
            "resent": self.resent,
            "elapsed_s": round(self.elapsed_s, 3),
            "requests_per_s": round(self.requests / self.elapsed_s, 1) if self.elapsed_s else 0.0,
            "received_bytes": self.received_bytes,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "steps": [
                {"step": row.name, "taken": row.taken, "failed": row.failed, **quantiles(row.latencies)} for row in rows
            ],
            "all_steps": quantiles(self.overall()),
            "failures": [
                {"step": f.step, "reason": f.reason, "count": f.count, "first_s": round(f.first_s, 3)}
                for f in self.failures.values()
            ],
        }


def quantiles(latencies: Latencies) -> dict[str, float | None]:
    points = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99}
    found = {name: latencies.quantile_ms(fraction) for name, fraction in points.items()}
    found["max_ms"] = latencies.max_s * 1e3 if latencies.count else None
    return {name: None if value is None else round(value, 3) for name, value in found.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """How many shoppers, how fast, how long. Without a bound they shop until ``Load.stop``."""

    target: Target
    scenario: Scenario = field(default_factory=lambda: DEFAULT_SCENARIO)
    users: int = 10
    rate: float | None = None
    duration_s: float | None = None
    requests: int | None = None
    seed: int = 1
    timeout_s: float = 30.0


class Load:
    """One run of a plan. ``run`` returns when the plan's bound is reached or ``stop`` was called.

    An open-ended load goes on until ``stop``: its plan's duration is then the least time, kept by the caller.

    Steps under way are finished, never cut off, so that the end of the run fails no request.
    """

    def __init__(self, plan: Plan, *, open_ended: bool = False) -> None:
        self.plan = plan
        self.open_ended = open_ended
        self.tally = Tally([name for _, name, _ in plan.scenario])
        self._weights = list(accumulate(weight for weight, _, _ in plan.scenario))
        self._stopped = asyncio.Event()
        self._slots = 0
        self._began = 0.0

    @property
    def elapsed_s(self) -> float:
        return now() - self._began if self._began else 0.0

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        self._stopped.set()

    async def stopped_within(self, seconds: float) -> bool:
        """Wait so long, or until the load is stopped."""
        try:
            await asyncio.wait_for(self._stopped.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def run(self) -> Tally:
        self._began = now()
        bound = None
        if self.plan.duration_s is not None and not self.open_ended:
            bound = asyncio.get_running_loop().call_later(self.plan.duration_s, self.stop)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self.plan.users):
                    group.create_task(self._shop(number), name=f"shopper {number}")
        finally:
            if bound is not None:
                bound.cancel()
            self.tally.elapsed_s = now() - self._began
        return self.tally

    async def _shop(self, number: int) -> None:
        plan = self.plan
        browser = Browser(plan.target, timeout_s=plan.timeout_s)
        shopper = Shopper(browser, self.tally, number, plan.seed)
        names = [(name, step) for _, name, step in plan.scenario]
        try:
            while not self._enough():
                due = await self._due()
                if due is None:
                    return
                name, step = shopper.random.choices(names, cum_weights=self._weights)[0]
                await self._take(shopper, name, step, due)
                if plan.rate is None:
                    await asyncio.sleep(0)  # a step that never waits must not starve the others
        finally:
            browser.close()

    def _enough(self) -> bool:
        limit = self.plan.requests
        full = limit is not None and self.tally.requests >= limit and not self.open_ended
        return full or self._stopped.is_set()

    async def _due(self) -> float | None:
        """The time at which the next step should begin; ``None`` if the run ends first."""
        if self.plan.rate is None:
            return now()
        due = self._began + self._slots / self.plan.rate
        self._slots += 1
        wait = due - now()
        if wait > 0 and await self.stopped_within(wait):
            return None
        return due

    async def _take(self, shopper: Shopper, name: str, step: Step, due: float) -> None:
        row = self.tally.steps[name]
        reason = ""
        try:
            await step(shopper)
        except AssertionError as error:
            reason = str(error).partition("\n")[0] or "an assertion of the scenario does not hold"
        except Exception as error:  # a step is the user's code: whatever it raises is its own failure
            reason = f"the scenario raised {type(error).__name__}: {error}"
        row.taken += 1
        row.latencies.record(now() - due)
        if reason:
            self.tally.step_failed(name, reason, now() - self._began)
            await asyncio.sleep(PAUSE_AFTER_FAILURE_S)
