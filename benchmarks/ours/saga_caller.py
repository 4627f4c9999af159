"""``python -m ... <database url>``: one call is a saga of three steps, each journalled, awaited to its end."""

from __future__ import annotations

import sys
from itertools import count

from benchmarks.driver import Call, drive
from seamline import Clock, Database, Module, Saga, Sagas
from seamline.kernel.clock import SystemClock
from seamline.kernel.lifetime import spare_the_collector
from seamline.kernel.owner import process_owner
from seamline.kernel.settings import SagasSettings
from seamline.module.wiring import Wiring
from seamline.sagas.runtime import SagasRuntime

module = Module("bench")


async def step(number: int) -> int:
    return number + 1


@module.saga
async def three_steps(s: Saga, number: int) -> int:
    for _ in range(3):
        number = await s.step(step, number)
    return number


async def connect() -> Call:
    database = Database(sys.argv[1], "bench")
    await database.start()
    clock = SystemClock()
    runtime = SagasRuntime("bench", SagasSettings(), clock, owner=process_owner("bench"))
    runtime.add(module, database, Wiring(module, {}, {Clock: lambda _: clock, Sagas: lambda _: None}))
    await runtime.start()
    sagas = runtime.sagas_of(module)
    spare_the_collector()  # as every worker does
    numbers = count()

    async def run() -> None:
        number = next(numbers)
        if await sagas.run(three_steps, number) != number + 3:
            message = "the saga gave another result"
            raise RuntimeError(message)

    return run


if __name__ == "__main__":
    drive(connect)
