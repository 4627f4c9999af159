"""What the tests of the log share: both stores, an open log, and records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from seamline.events.log import Log, open_log
from seamline.events.record import Record
from seamline.kernel.clock import Clock, ManualClock
from seamline.kernel.settings.sections import EventsSettings
from seamline.kernel.store import Database, sqlite_url

START_MS = 1_767_225_600_000
assert datetime.fromtimestamp(START_MS / 1000, UTC) == ManualClock().now()


def record(
    number: int, *, key: str = "", type_: str = "Placed", at_ms: int = START_MS, due_ms: int = 0, expires_ms: int = 0,
    size: int = 20,
) -> Record:  # fmt: skip
    """An event like any other, told by its number."""
    return Record(
        id=f"event-{number}", source="orders", type=type_, data=f'{{"n":{number}}}'.encode().ljust(size), time_ms=at_ms,
        key=key, due_ms=due_ms, expires_ms=expires_ms, trace="00-0123456789abcdef0123456789abcdef-0123456789abcdef-01",
        headers={"tenant": "blue"},
    )  # fmt: skip


class Place:
    """Where the log of one test is, on one of the stores."""

    def __init__(self, url: str, module: str = "orders") -> None:
        self.url = url
        self.module = module

    @asynccontextmanager
    async def open(
        self,
        clock: Clock | None = None,
        announce: Callable[[], None] = lambda: None,
        settings: EventsSettings | None = None,
    ) -> AsyncGenerator[tuple[Database, Log]]:
        """As a process of its own would."""
        async with Database(self.url, self.module) as database:
            log = open_log(database, settings or EventsSettings(), clock or ManualClock(), announce)
            await log.start()
            try:
                yield database, log
            finally:
                await log.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs_server)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place for a log, on either store."""
    if request.param == "sqlite":
        return sqlite_place(tmp_path)
    return Place(request.getfixturevalue("postgres_server").url(), f"orders_{uuid4().hex[:12]}")


def sqlite_place(folder: Path) -> Place:
    return Place(sqlite_url(folder, "orders"))


async def everything(log: Log, after: int = 0, limit: int = 100) -> list[Record]:
    """From here to the end, page by page."""
    found: list[Record] = []
    while page := await log.read(after, limit=limit):
        found += [stored.record for stored in page]
        after = page.through
    return found


async def eventually(what: Callable[[], Awaitable[bool]], timeout_s: float = 20) -> None:
    async with asyncio.timeout(timeout_s):
        while not await what():  # noqa: ASYNC110  # nothing tells us
            await asyncio.sleep(0.01)
