"""From publishing to the handler's effect, in one process."""

from __future__ import annotations

from pathlib import Path

from seamline.kernel.store import Database
from seamline.module import Module
from tests.events.shop import Sold, running, shop, until, write


async def test_an_event_published_in_a_transaction_takes_effect_in_another_module(tmp_path: Path):
    """The way of every event: outbox, log, handler, effect."""
    books = Module("books")

    @books.on(Sold)
    async def enter(event: Sold, db: Database) -> None:
        await write(db, event.sku, event.number)

    async with running(tmp_path, shop(), books) as process:
        async with process.databases["shop"].transaction():
            await process.events.publish(Sold(sku="mug", number=1))
        await until(lambda: process.count())
        assert await process.rows() == [("mug", 1)]
