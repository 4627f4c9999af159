"""``python -m ... <database url>``: one call is a workflow of three steps, awaited to its end."""

from __future__ import annotations

import sys
from itertools import count

from dbos import DBOS, DBOSConfig

from benchmarks.driver import Call, drive

CONFIGURATION: DBOSConfig = {
    "name": "bench",
    "system_database_url": sys.argv[1],
    "run_admin_server": False,
    "log_level": "ERROR",
}


@DBOS.step()
async def step(number: int) -> int:
    return number + 1


@DBOS.workflow()
async def three_steps(number: int) -> int:
    for _ in range(3):
        number = await step(number)
    return number


async def connect() -> Call:
    DBOS(config=CONFIGURATION)
    DBOS.launch()
    numbers = count()

    async def run() -> None:
        number = next(numbers)
        if await three_steps(number) != number + 3:
            message = "the workflow gave another result"
            raise RuntimeError(message)

    return run


if __name__ == "__main__":
    drive(connect)
