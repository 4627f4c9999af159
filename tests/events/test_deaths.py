"""An event that takes its process down with it ends with the dead letters, and nothing else does."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from pathlib import Path

from tests.events.consumer_process import DEADLY, Fate, books
from tests.events.shop import Process, Sold, running, shop, until
from tests.events.test_embedded import consuming

from seamline.events.tables import dead_letters, marks
from seamline.module import Module


async def test_an_event_that_kills_its_process_each_time_goes_to_the_dead_letters(tmp_path: Path):
    """After as many noted deaths as the handler has attempts; all other events take effect once."""
    async with running(tmp_path, shop(), Module("books")) as looking:
        await looking.events.publish_all([Sold(sku=f"sku{n}", number=n) for n in range(20)])
        died = 0
        while not await looking.count_is(1, dead_letters):
            async with consuming(tmp_path, "deadly") as child:
                await until(partial(_ended_or_done, child, looking))
                died += child.returncode == -signal.SIGKILL
            assert died < 6, "nobody took note"
        assert sorted(number for _, number in await looking.rows()) == [n for n in range(20) if n != DEADLY]
    assert died == 3, "one without care, and two that were noted"
    async with running(tmp_path, shop(), books(Fate("", 0), frozen=False)) as last:
        (letter,) = await last.runtime.admin("dead list", {"module": "books"})
        assert letter["reason"].startswith("SL7212: 2 times the process died while books.enter handled it")
        assert letter["attempts"] == 2


async def _ended_or_done(child: asyncio.subprocess.Process, looking: Process) -> bool:
    return child.returncode is not None or (await looking.count_is(19) and await looking.count_is(1, dead_letters))


async def test_who_ends_in_order_is_not_taken_for_dead(tmp_path: Path):
    """No mark is left, and the next one works with all hands."""
    for _ in range(2):
        async with running(tmp_path, shop(), books(Fate("", 0), frozen=False)) as process:
            await until(process.joined)
            (consumer,) = process.runtime.consumers()
            assert consumer.careful == 0
            assert await process.count(marks) == 1
