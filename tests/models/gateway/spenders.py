"""Processes that spend from one budget and are killed at any moment: what engines billed against what the ledger says.

Run as a program: ``python spenders.py <ledger> <kills>`` writes one line of JSON. An engine is a pipe that a child
writes a byte to; what arrived there was billed, whoever dies afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

from seamline.models.gateway.budgets import Budgets
from seamline.models.gateway.errors import BudgetExceeded
from seamline.models.gateway.keys import Caller, Key
from seamline.models.gateway.prices import Cost
from seamline.models.gateway.quota import Limit

MOST = 60_000
LIMIT = Limit(name="cap", by="key", unit="tokens", most=MOST, per="total")
COST = Cost(3, 0)
CHILDREN = 3


async def spend(path: Path, pipe: int) -> None:
    budgets = Budgets(path, [LIMIT])
    await budgets.start()
    who = Caller(Key(id="k"))

    async def call() -> None:
        reservation = budgets.reserve_now(who, "m", COST) or await budgets.reserve(who, "m", COST)
        reservation.asked(COST)
        os.write(pipe, b".")
        await asyncio.sleep(0)
        reservation.settle(COST)

    try:
        while True:
            await asyncio.gather(*(call() for _ in range(8)))
            await asyncio.sleep(0.0005)
    except BudgetExceeded:
        await asyncio.sleep(0.05)
    await budgets.close()


def child(path: Path) -> tuple[int, int]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            asyncio.run(spend(path, writing))
        finally:
            os._exit(0)
    os.close(writing)
    os.set_blocking(reading, False)
    return pid, reading


def drained(pipe: int) -> int:
    count = 0
    while True:
        try:
            data = os.read(pipe, 65536)
        except BlockingIOError:
            return count
        if not data:
            return count
        count += len(data)


def main(path: Path, kills: int) -> None:
    chance = random.Random(kills)
    billed = killed = 0
    children = [child(path) for _ in range(CHILDREN)]
    for _ in range(kills):
        pid, pipe = children.pop(0)
        select.select([pipe], [], [], 30)  # it spends
        until = time.monotonic() + chance.uniform(0.0, 0.04)
        while (left := until - time.monotonic()) > 0:
            for each in select.select([pipe, *(other for _, other in children)], [], [], left)[0]:
                billed += drained(each)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        billed += drained(pipe)
        os.close(pipe)
        killed += 1
        children.append(child(path))
    midway = billed * COST.tokens
    for pid, pipe in children:
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            select.select([pipe], [], [], 0.01)
            billed += drained(pipe)
        billed += drained(pipe)
    found = {"billed": billed * COST.tokens, "midway": midway, "killed": killed, **asyncio.run(ledger(path))}
    sys.stdout.write(json.dumps(found) + "\n")


async def ledger(path: Path) -> dict[str, int]:
    budgets = Budgets(path, [LIMIT])
    spent = {each.account: each for each in await budgets.spent() if each.unit == "tokens"}
    await budgets.close()
    return {"used": spent["key:k"].used, "held": spent["key:k"].held, "kept": spent["used:k"].used}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
