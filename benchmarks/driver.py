"""Load from inside a client process: closed loops and paced (open) loops, both bounded in time and count.

A driver is a child that reads one JSON command per line and answers with one JSON line:
``{"loop": "closed", "in_flight": 64, "seconds": 2}`` or ``{"loop": "paced", "rate": 50, "seconds": 5}``.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from time import perf_counter, process_time
from typing import Any

import uvloop

from benchmarks.figures import percentile

CALLS_MAX = 2_000_000
Call = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Measure:
    """What one stretch of load gave; latencies in milliseconds."""

    calls: int
    errors: int
    elapsed_s: float
    client_cpu_s: float
    p50_ms: float
    p99_ms: float
    server_cpu_s: float = 0.0
    first_error: str = ""

    @property
    def per_s(self) -> float:
        return self.calls / self.elapsed_s

    @property
    def per_server_cpu_s(self) -> float:
        return self.calls / self.server_cpu_s if self.server_cpu_s else float("nan")

    @property
    def per_cpu_s(self) -> float:
        """Calls per second of CPU of both ends together."""
        return self.calls / (self.server_cpu_s + self.client_cpu_s)

    @property
    def server_cpu_ms(self) -> float:
        """Server CPU per call, in milliseconds."""
        return 1000 * self.server_cpu_s / self.calls


class _Tally:
    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self.errors = 0
        self.first_error = ""

    async def timed(self, call: Call, since: float) -> None:
        try:
            await call()
        except Exception as error:
            self.errors += 1
            self.first_error = self.first_error or f"{type(error).__name__}: {error}"
        else:
            self.latencies_s.append(perf_counter() - since)

    def measure(self, elapsed_s: float, client_cpu_s: float) -> Measure:
        ordered = sorted(self.latencies_s)
        return Measure(
            calls=len(ordered),
            errors=self.errors,
            elapsed_s=elapsed_s,
            client_cpu_s=client_cpu_s,
            p50_ms=1000 * percentile(ordered, 0.50) if ordered else float("inf"),
            p99_ms=1000 * percentile(ordered, 0.99) if ordered else float("inf"),
            first_error=self.first_error,
        )


async def closed_loop(call: Call, *, in_flight: int, seconds: float, calls_max: int = CALLS_MAX) -> Measure:
    """``in_flight`` callers, each of which calls again as soon as it is answered."""
    tally = _Tally()
    started, cpu = perf_counter(), process_time()
    until = started + seconds
    left = calls_max

    async def caller() -> None:
        nonlocal left
        while left > 0 and (now := perf_counter()) < until:
            left -= 1
            await tally.timed(call, now)

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(caller())
    return tally.measure(perf_counter() - started, process_time() - cpu)


async def paced_loop(call: Call, *, rate: float, seconds: float) -> Measure:
    """Calls at fixed times whatever the answers do; a latency counts from the time at which the call was due."""
    tally = _Tally()
    started, cpu = perf_counter(), process_time()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = started + number / rate
            if (wait := due - perf_counter()) > 0:
                await asyncio.sleep(wait)
            group.create_task(tally.timed(call, due))
    return tally.measure(perf_counter() - started, process_time() - cpu)


async def serve_commands(perform: Callable[[dict[str, Any]], Awaitable[Measure]]) -> None:
    """Answer each command with its measure until standard input ends."""
    loop = asyncio.get_running_loop()
    say({"ready": True})
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        say(asdict(await perform(json.loads(line))))


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def drive(connect: Callable[[], Awaitable[Call]]) -> None:
    """Run this process as a driver: connect once, then load on command until standard input ends."""

    async def main() -> None:
        call = await connect()

        async def perform(command: dict[str, Any]) -> Measure:
            if command["loop"] == "paced":
                return await paced_loop(call, rate=command["rate"], seconds=command["seconds"])
            return await closed_loop(call, in_flight=command["in_flight"], seconds=command["seconds"])

        await serve_commands(perform)

    run(main)


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a child's coroutine on uvloop; what goes wrong is told to the harness in its own words."""

    async def told() -> None:
        try:
            await main()
        except Exception as error:
            traceback.print_exc()
            say({"error": f"{type(error).__name__}: {error}"})

    uvloop.run(told())
