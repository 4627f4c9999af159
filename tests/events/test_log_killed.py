"""``kill -9`` under the log: at every write point and at any moment, one process and many, on both stores."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.events.log_child import Child
from tests.events.log_rig import Place, eventually, everything, place, record, sqlite_place

__all__ = ["place"]  # fixture


async def prepared(place: Place) -> None:
    async with place.open() as (database, _), database.transaction() as tx:
        await tx.execute(text("CREATE TABLE sums (n BIGINT)"))


async def judge(place: Place, acknowledged: Iterable[int]) -> None:
    """Everything acknowledged is there, once, in the order of its key, without gaps, together with its row."""
    async with place.open() as (database, log):

        async def all_ended() -> bool:
            # The server may still be finding out that its client is dead.
            return (await log.ends()).last == (await newest(place))

        await eventually(all_ended)
        numbers = [int(each.id.partition("-")[2]) for each in await everything(log)]
        async with database.read() as r:
            sums = sorted((await r.execute(text("SELECT n FROM sums"))).scalars())
        await log.append([record(0)])
        assert (await everything(log))[-1].id == "event-0"  # and it goes on
    assert set(acknowledged) <= set(numbers)
    by_key: dict[int, list[int]] = defaultdict(list)
    for number in numbers:
        by_key[number // 1_000_000].append(number % 1_000_000)
    assert all(numbers == list(range(len(numbers))) for numbers in by_key.values())
    assert sums == sorted(number for number in numbers if number // 1_000_000 % 2 == 0)


async def newest(place: Place) -> int:
    """The newest row that can be seen at all."""
    async with place.open() as (database, _), database.read() as r:
        return (await r.execute(text("SELECT max(position) FROM seamline_log"))).scalar_one() or 0


def killed_at(place: Place, point: int) -> list[int]:
    child = Child(place, 1, 4, die_at=point)
    child.wait_for(10_000)
    child.end()
    return child.acknowledged


async def test_killed_at_a_write_point_nothing_acknowledged_is_lost(tmp_path: Path):
    """Some of the points at which statements and commits begin and end."""
    await sweep(tmp_path, range(40, 160, 7))


@pytest.mark.torture
async def test_killed_at_every_write_point_nothing_acknowledged_is_lost(tmp_path: Path):
    await sweep(tmp_path, range(1, 500))


async def sweep(folder: Path, points: range) -> None:
    total = 0
    for point in points:
        place = sqlite_place(folder / str(point))
        await prepared(place)
        acknowledged = killed_at(place, point)
        await judge(place, acknowledged)
        total += len(acknowledged)
    assert total > 0


@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.torture)])
async def test_processes_that_append_at_once_and_are_killed_lose_nothing(place: Place, rounds: int):
    """Three at a time on one log, each killed at a moment of its own."""
    await prepared(place)
    lots = random.Random(5)
    acknowledged: list[int] = []
    for turn in range(rounds):
        children = [Child(place, turn * 3 + number, 3) for number in range(3)]
        for child in children:
            child.wait_for(lots.randrange(1, 60))
        for child in lots.sample(children, 3):
            child.wait_for(len(child.acknowledged) + lots.randrange(40))
            child.end()
            acknowledged += child.acknowledged
    await judge(place, acknowledged)
    assert len(acknowledged) > rounds * 3
