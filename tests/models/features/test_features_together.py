"""Features that are fed and looked up at once, on both stores: each answer can be had again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from seamline.events.streams import stream
from seamline.kernel.clock import SystemClock
from seamline.kernel.store import Database, sqlite_url
from seamline.models.features import Case, FeatureSet, FeatureTable, Vector, count, total
from seamline.module.values import Event


class Paid(Event):
    who: str
    cents: int
    at: datetime


paid = stream(Paid, at=lambda e: e.at).by(who=lambda e: e.who)
FEATURES = FeatureSet(
    "payers", times=count(paid, within_s=3600), cents=total(paid, lambda e: e.cents, within_s=3600)
)  # fmt: skip
WRITERS, BATCHES = 4, 12


@pytest.mark.parametrize(
    "store", ["sqlite", pytest.param("postgresql", marks=pytest.mark.needs_server)]
)  # fmt: skip
async def test_what_was_served_among_many_writers_is_joined_again(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
):
    """Three write, each in transactions of its own, while another asks: no answer has half a transaction, none knows
    less than the one before, and each is given again by what it had seen, though all was over when that was asked. On
    PostgreSQL each has connections of its own."""
    name = f"risk_{uuid4().hex[:8]}"
    url = sqlite_url(tmp_path, name) if store == "sqlite" else request.getfixturevalue("postgres_server").url()
    clock, served, done = SystemClock(), list[Vector](), asyncio.Event()
    table = FeatureTable(FEATURES, keep_s=7200)
    async with AsyncExitStack() as stack:
        many = WRITERS + 1 if store == "postgresql" else 1
        opened = [await stack.enter_async_context(Database(url, name)) for _ in range(many)]
        reader, writers = opened[0], opened[1:] or opened * WRITERS
        for database in opened:
            await table.prepare(database, clock)

        async def write(database: Database, number: int) -> None:
            for batch in range(BATCHES):
                at = datetime.now(UTC) - timedelta(milliseconds=50 * batch * number)
                # Two of one transaction are known together or not at all; a large one is slow to commit.
                pair = [Paid(who="ada", cents=1, at=at), Paid(who="ada", cents=-1, at=at)]
                await table.take(database, clock, pair * (40 if number == 0 else 1))

        async def ask() -> None:
            while not done.is_set():
                served.append(await table.now(reader, clock, "ada"))
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as both:
            asking = both.create_task(ask())
            async with asyncio.TaskGroup() as writing:
                for number, database in enumerate(writers):
                    writing.create_task(write(database, number))
            done.set()
            await asking
        served.append(await table.now(reader, clock, "ada"))
        assert served[-1].values == {"times": 2 * (40 + WRITERS - 1) * BATCHES, "cents": 0}
        assert {each.values["cents"] for each in served} == {0}
        assert [each.seen for each in served] == sorted(each.seen for each in served)
        again = await table.at(reader, [Case("ada", each.at, each.seen) for each in served])
        assert [each.values for each in again] == [each.values for each in served]
        assert len({each.seen for each in served}) > 2
