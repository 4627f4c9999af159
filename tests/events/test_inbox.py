"""What was handled is noted, of many attempts at once, and each attempt stands for itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from seamline.events.errors import LostLeaseError
from seamline.events.fences import metadata as lease_tables
from seamline.events.inbox import HandledElsewhereError, Inbox
from seamline.events.record import Record
from seamline.events.tables import METADATA
from seamline.events.transport import Delivery, Fence
from seamline.kernel.clock import ManualClock
from seamline.kernel.store import Database, sqlite_url

FORK = """
import os
from seamline.events.events import new_id
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, new_id(1).encode())
    os._exit(0)
print(new_id(1) != os.read(reading, 32).decode())
"""


def delivery(number: int, fence: Fence | None = None) -> Delivery:
    record = Record(id=f"{number}", source="shop", type="Sold", data=b"{}", time_ms=1)
    return Delivery(record, "shop", 0, str(number), fence)


async def test_one_attempt_that_fails_takes_none_along(tmp_path: Path):
    """Of notes that share a turn, one for an event handled elsewhere and one under a lost lease leave no row."""
    async with Database(sqlite_url(tmp_path, "books"), "books") as database:
        await database.ensure(METADATA)
        await database.ensure(lease_tables)
        inbox = Inbox(database, ManualClock())
        await inbox.settle(None, "books.enter", [delivery(1)])
        outcomes = await asyncio.gather(
            inbox.settle(None, "books.enter", [delivery(2)]),
            inbox.settle(None, "books.enter", [delivery(3), delivery(1)]),
            inbox.settle(None, "books.enter", [delivery(4, Fence("books.enter@shop/0", 7))]),
            inbox.settle(None, "books.enter", [delivery(5), delivery(6)]),
            return_exceptions=True,
        )
        records = [delivery(number).record for number in range(8)]
        seen = await inbox.seen("books.enter", records)
    assert [type(each) for each in outcomes] == [type(None), HandledElsewhereError, LostLeaseError, type(None)]
    assert {event_id for _, event_id in seen} == {"1", "2", "5", "6"}


def test_a_forked_process_draws_other_ids():
    """A child does not go on with its parent's generator."""
    run = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "True"
