"""A consumer process for the history checker: ``python -m tests.events.history_consumer <json>``.

It handles events as the consumer of the product does: the fence, the memory of what was handled, and the effect in one
transaction, the acknowledgement after it. It ends when it is killed.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select
from tests.events.conformance import GROUP, TOPIC, TYPES

from seamline.events.brokers import open_transport
from seamline.events.errors import EventsError, LostLeaseError
from seamline.events.fences import check
from seamline.events.leases import Leases
from seamline.events.transport import Delivery, Transport
from seamline.kernel.clock import SystemClock
from seamline.kernel.owner import process_owner
from seamline.kernel.settings import EventsSettings
from seamline.kernel.store import Database, StoreError

T = TypeVar("T")
metadata = MetaData()
effects = Table(
    "seamline_test_effects",
    metadata,
    Column("place", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False),
    Column("key", String, nullable=False),
)
handled = Table("seamline_test_handled", metadata, Column("id", String, primary_key=True))


class Task(msgspec.Struct):
    url: str
    app: str
    database: str
    deliveries: str
    """A file; a line for each delivery."""
    partitions: int = 4


async def consume(task: Task) -> None:
    clock = SystemClock()
    async with Database(task.database, "emails") as database:
        await database.ensure(metadata)
        leases = Leases(database, process_owner(), clock, ttl_s=1.5)
        transport = open_transport(
            task.url,
            app=task.app,
            settings=EventsSettings(partitions=task.partitions),
            leases=lambda _: leases,
            clock=clock,
        )
        await _again(transport.start)
        await _handle(transport, database, Path(task.deliveries))


async def _again(work: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await work()
        except EventsError:
            await asyncio.sleep(0.05)


async def _handle(transport: Transport, database: Database, seen: Path) -> None:
    subscription = await _again(lambda: transport.subscribe(TOPIC, GROUP, TYPES, "earliest"))
    with seen.open("a", encoding="utf-8") as out:
        while True:
            try:
                deliveries = await subscription.fetch(20, 1.0)
            except EventsError:
                await asyncio.sleep(0.05)
                continue
            out.writelines(f"{each.record.id} {each.record.key}\n" for each in deliveries)
            out.flush()
            for batch in _by_key(deliveries):
                if not await _take_effect(database, batch):
                    continue
                try:
                    await subscription.acknowledge(batch)
                except EventsError:
                    await asyncio.sleep(0.05)  # the broker will hear of it later, or hands it out again


def _by_key(deliveries: Sequence[Delivery]) -> list[list[Delivery]]:
    """Those of each key in order, the keys in any: what is acknowledged first may stand last in its partition."""
    batches: dict[str, list[Delivery]] = {}
    for each in deliveries:
        batches.setdefault(each.record.key, []).append(each)
    return random.sample(list(batches.values()), len(batches))


async def _take_effect(database: Database, deliveries: Sequence[Delivery]) -> bool:
    while True:
        try:
            async with database.transaction() as tx:
                for fence in {each.fence for each in deliveries if each.fence is not None}:
                    await check(tx, fence)
                ids = [each.record.id for each in deliveries]
                known = set((await tx.execute(select(handled.c.id).where(handled.c.id.in_(ids)))).scalars())
                for each in deliveries:
                    if each.record.id not in known:
                        known.add(each.record.id)
                        await tx.execute(insert(handled).values(id=each.record.id))
                        await tx.execute(insert(effects).values(id=each.record.id, key=each.record.key))
        except LostLeaseError:
            return False
        except StoreError:
            await asyncio.sleep(0.05)
        else:
            return True


if __name__ == "__main__":
    asyncio.run(consume(msgspec.json.decode(sys.argv[1], type=Task)))
