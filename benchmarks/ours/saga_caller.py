"""``python -m ... <database url>``: one call is a saga of three steps, each journalled, awaited to its end."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack

from benchmarks.driver import Call, drive
from benchmarks.ours.sagas import engine, three_steps
from seamline.kernel.lifetime import spare_the_collector

open_for_good = AsyncExitStack()


async def connect() -> Call:
    sagas = await open_for_good.enter_async_context(engine(sys.argv[1]))
    spare_the_collector()  # as every worker does

    async def run() -> None:
        if await sagas.run(three_steps, 7) != 10:
            message = "the saga gave another result"
            raise RuntimeError(message)

    return run


if __name__ == "__main__":
    drive(connect)
