"""What the tests of streams share: an event, and a view on a database of its own with a clock that tests move."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import contextlib
import zlib
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event as sqlalchemy_events
from sqlalchemy import text

from seamline.events.streams import ClosedWindow, View, materialise
from seamline.events.streams.stream import Definition
from seamline.kernel.clock import ManualClock
from seamline.kernel.store import Database, sqlite_url
from seamline.module.module import Module
from seamline.module.values import Event

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
ZERO_MS = int(START.timestamp() * 1000)


class Sold(Event, key="order"):
    order: str
    currency: str
    cents: int
    shopper: str
    at: datetime


class Filled(Event):
    shopper: str
    pieces: int
    at: datetime


def sold(at_s: float, cents: int = 1, currency: str = "EUR", shopper: str = "ada", *, order: str = "") -> Sold:
    """Of one partition unless ``order`` says otherwise."""
    return Sold(order=order, currency=currency, cents=cents, shopper=shopper, at=START + timedelta(seconds=at_s))


def filled(at_s: float, shopper: str = "ada", pieces: int = 1) -> Filled:
    return Filled(shopper=shopper, pieces=pieces, at=START + timedelta(seconds=at_s))


class Rig:
    """Views on one database, fed directly as their handlers would be: inside of a unit."""

    def __init__(self, database: Database) -> None:
        self.db = database
        self.clock = ManualClock(START)
        self.clock.advance(86_400)  # everything that tests tell has happened already
        self.told: list[ClosedWindow] = []
        self.views: list[View] = []
        self.published: list[Event] = []

    @classmethod
    @asynccontextmanager
    async def on_sqlite(cls, folder: Path) -> AsyncGenerator[Rig]:
        async with Database(sqlite_url(folder, "shop"), "shop") as database, cls.on(database) as rig:
            yield rig

    @classmethod
    @asynccontextmanager
    async def on(cls, database: Database) -> AsyncGenerator[Rig]:
        rig = cls(database)
        try:
            yield rig
        finally:
            for view in rig.views:
                await view.close(database)

    def now(self, seconds: float) -> None:
        """It is so many seconds after START; the first time before there is a view, then onwards."""
        if not self.views:
            self.clock = ManualClock(START)
        self.clock.advance(seconds - (self.clock.now() - START).total_seconds())

    async def view(
        self, name: str, definition: Definition[Any], *, version: int = 1, on_close: Any = None, **options: Any
    ) -> View:
        options = {"idle_s": 5, **options}
        view = materialise(Module("shop"), name, definition, version=version, on_close=on_close, **options)
        await view.prepare(self.db, self.clock)
        self.views.append(view)
        return view

    async def restart(self) -> None:
        """Another process takes over."""
        for view in self.views:
            await view.close(self.db)
            await view.prepare(self.db, self.clock)

    async def take(self, *events: Event) -> None:
        async with self.db.unit():
            await self.views[-1].take(self.db, self.clock, events, publisher=self)

    async def publish_all(self, events: Sequence[Event]) -> list[str]:
        self.published.extend(events)
        return [str(len(self.published))]

    async def tick(self) -> None:
        await self.views[-1].tick(self.db, self.clock, self)

    async def rows(self, view: str, columns: str) -> list[tuple[Any, ...]]:
        order = "name" if view == "stream_status" else "start_ms, closed"
        async with self.db.read() as connection:
            found = await connection.execute(
                text(f"SELECT {columns} FROM {view} ORDER BY {order}"), {"zero": ZERO_MS} if ":zero" in columns else {}
            )
            return [tuple(row) for row in found]

    async def many(self, table: str) -> int:
        async with self.db.read() as connection:
            return (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()

    async def aside(self) -> list[tuple[str, str, int]]:
        """Reason, event, and milliseconds after START."""
        async with self.db.read() as connection:
            rows = await connection.execute(text("SELECT reason, event, at_ms FROM seamline_stream_aside ORDER BY id"))
            return [(row.reason, row.event, row.at_ms - ZERO_MS) for row in rows]

    @contextlib.contextmanager
    def counting(self) -> Generator[list[str]]:
        """The statements that are run meanwhile."""
        engine = self.db._write.engine
        assert engine is not None
        statements: list[str] = []

        def note(*arguments: Any) -> None:
            statements.append(str(arguments[2]))

        sqlalchemy_events.listen(engine.sync_engine, "before_cursor_execute", note)
        try:
            yield statements
        finally:
            sqlalchemy_events.remove(engine.sync_engine, "before_cursor_execute", note)

    def keys_of_two_partitions(self) -> tuple[str, str]:
        first = "0"
        other = next(str(n) for n in range(1, 1000) if zlib.crc32(str(n).encode()) % 16 != zlib.crc32(b"0") % 16)
        return first, other


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig]:
    async with Rig.on_sqlite(tmp_path) as made:
        yield made
