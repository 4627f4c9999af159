"""Materialised views: a stream's windows as rows that anybody may query with SQL.

A view is fed by batch handlers, one for each event type: state, rows, watermark and the note that the events were
handled commit as one, so that a crash leaves nothing half and a redelivery counts nothing twice.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.codec import encode_event
from seamline.events.events import Events
from seamline.events.streams import generations, tables
from seamline.events.streams.aggregates import Cell
from seamline.events.streams.engine import Item, Windowing, aside, item_of, key_of, refused_why
from seamline.events.streams.errors import StreamDeclarationError
from seamline.events.streams.join import Arrival, Joining
from seamline.events.streams.store import PutAside, Store, ViewRow, WindowState, may_be_due
from seamline.events.streams.stream import Definition, Source, check_name
from seamline.events.streams.watermark import BEGINNING, Progress
from seamline.kernel.clock import Clock
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings import Settings
from seamline.kernel.store import Database
from seamline.module.module import Module
from seamline.module.values import Event

E = TypeVar("E")

TICK_S: Final = 1.0
FEED_WAIT_S: Final = 0.2
"""How long an event waits for others that change the same windows. Who looks at a view does not see it."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class ClosedWindow:
    """A window that was closed: the first time with revision 1, and again after each change by late events."""

    view: str
    keys: dict[str, str]
    start: datetime
    end: datetime
    values: dict[str, Cell]
    revision: int


OnClose = Callable[[ClosedWindow], Event | None]


class Publisher(Protocol):
    """``Events``, as far as views need it."""

    async def publish_all(self, events: Sequence[Event]) -> list[str]: ...


@dataclass(slots=True)
class _Running:
    started_ms: int
    owner: TaskOwner
    sqlite: bool


class View:
    """A materialised view of one module. Made by :func:`materialise`."""

    def __init__(
        self,
        name: str,
        definition: Definition[Any],
        *,
        version: int,
        keep_s: float,
        on_close: OnClose | None,
        idle_s: float,
        ahead_s: float,
    ) -> None:
        self.name = name
        self.version = version
        self.definition = definition
        self.on_close = on_close
        self.rows = tables.row_table(name, version, definition)
        self.events = {source.event.__name__: source.event for source in definition.sources}
        self._keep_ms = round(keep_s * 1000)
        self._idle_ms = round(idle_s * 1000)
        self._ahead_ms = round(ahead_s * 1000)
        self._patience_ms = {
            name: max(s.out_of_order_ms for s in definition.sources if s.event is event)
            for name, event in self.events.items()
        }
        self._aggregates = tuple(definition.aggregates.values())
        self._sources = {
            event: [source for source in definition.sources if source.event is event] for event in self.events.values()
        }
        self._running: dict[Database, _Running] = {}

    # Life.

    async def prepare(self, database: Database, clock: Clock) -> None:
        """Make tables and views where they are absent. Raises StreamStateError if older ones do not fit the code."""
        self._running[database] = _Running(_ms(clock.now()), TaskOwner(f"view {self.name}"), database.path is not None)
        await database.ensure(tables.metadata)
        await database.ensure(self.rows.metadata)
        async with database.transaction() as connection:
            await generations.begin(connection, database.module, self.name, self.version, self.rows, self._shape())

    def keep_time(self, database: Database, clock: Clock, publisher: Publisher | None) -> None:
        """Close windows as time passes, though nothing comes."""

        async def run() -> None:
            while True:
                await clock.sleep(TICK_S)
                await self.tick(database, clock, publisher)

        self._running[database].owner.spawn(run(), name=f"time of the view {self.name}")

    async def close(self, database: Database) -> None:
        running = self._running.pop(database, None)
        if running is not None:
            await running.owner.stop(5.0)

    def _shape(self) -> str:
        definition = self.definition
        columns = ", ".join(f"{name} {each.kind.__name__}" for name, each in definition.aggregates.items())
        keys = ", ".join(definition.key_names)
        return (
            f"by ({keys}) in {definition.window}: {columns}; of {sorted(self.events)} joined {_join_shape(definition)}"
        )

    # Work.

    async def take(
        self,
        database: Database,
        clock: Clock,
        events: Sequence[Event],
        *,
        partitions: int = 16,
        publisher: Publisher | None = None,
    ) -> None:
        """Bring events into the view, inside of a unit of work; without any, let time pass."""
        connection = await database.current()
        assert connection is not None, "a view is changed in a unit of work"
        view = await generations.lock(connection, database.module, self.name, self.version)
        if view is None:
            return  # a newer version has replaced this one
        run = await self._open(database, connection, view, _ms(clock.now()))
        await run.take(events, partitions)
        told = await run.advance()
        await run.finish()
        if view.state == "building":
            await generations.swap_if_ready(connection, view, self.name, self.rows, run.progress, run.now_ms)
        if told and self.on_close is not None and publisher is not None:
            told_of = [
                event for window in told if (event := self.on_close(self._closed(window, run.store))) is not None
            ]
            await publisher.publish_all(told_of)

    async def tick(self, database: Database, clock: Clock, publisher: Publisher | None = None) -> None:
        """Let time pass: what is due by now is closed."""
        if self._running[database].sqlite and not await database.raw_read(
            lambda sqlite: self._may_be_due(sqlite, clock)
        ):
            return
        async with database.read() as connection:
            view = await generations.find(connection, self.name, self.version)
            if view is None or not await self._is_due(database, connection, view, _ms(clock.now())):
                return
        async with database.unit() as unit:
            await unit.connection()
            await self.take(database, clock, (), publisher=publisher)

    def _may_be_due(self, sqlite: sqlite3.Connection, clock: Clock) -> bool:
        join = self.definition.join
        by_ms = _ms(clock.now()) + self._ahead_ms  # no watermark comes further
        down_ms = by_ms - (join.within_ms if join is not None else 0)
        return may_be_due(sqlite, self.name, self.version, by_ms, down_ms, self.definition.late_ms)

    async def _is_due(self, database: Database, connection: AsyncConnection, view: ViewRow, now_ms: int) -> bool:
        run = await self._open(database, connection, view, now_ms)
        reached_ms = run.progress.advance(now_ms)
        if view.state == "building":
            return True
        return reached_ms > view.watermark_ms and await run.store.anything_before(
            reached_ms, reached_ms - run.held_back_ms, self.definition.late_ms
        )

    async def _open(self, database: Database, connection: AsyncConnection, view: ViewRow, now_ms: int) -> _Run:
        store = Store(connection, view, self._aggregates, self.definition.key_names, self.rows)
        running = self._running[database]
        progress = Progress(
            self._patience_ms,
            idle_ms=self._idle_ms,
            started_ms=running.started_ms,
            watermark_ms=view.watermark_ms,
            heard=await store.heard(),
        )
        return _Run(self, store, progress, now_ms)

    def _closed(self, window: WindowState, store: Store) -> ClosedWindow:
        keys = dict(zip(self.definition.key_names, msgspec.json.decode(window.key, type=list[str]), strict=True))
        start, end = (_EPOCH + each * _MS for each in (window.start_ms, window.end_ms))
        return ClosedWindow(self.name, keys, start, end, store.results(window), window.revision)

    # What a run asks of its view.

    def sources_of(self, event: Event) -> list[Source]:
        return self._sources[type(event)]

    @property
    def aggregates(self) -> tuple[Any, ...]:
        return self._aggregates

    @property
    def ahead_ms(self) -> int:
        return self._ahead_ms

    @property
    def keep_ms(self) -> int:
        return self._keep_ms


class _Run:
    """One batch, or one tick."""

    def __init__(self, view: View, store: Store, progress: Progress, now_ms: int) -> None:
        self._view = view
        self.store = store
        self.progress = progress
        self.now_ms = now_ms
        self._windowing = Windowing(view.definition, store)
        join = view.definition.join
        self._joining = Joining(join, view.events, store) if join is not None else None
        self.held_back_ms = join.within_ms if join is not None else 0
        self._aside: list[PutAside] = []
        self._heard: set[tuple[str, int]] = set()
        self._before_ms = progress.watermark_ms

    async def take(self, events: Sequence[Event], partitions: int) -> None:
        arrivals: list[Arrival] = []
        items: list[Item] = []
        for event in events:
            self._read(event, partitions, arrivals, items)
        if self._joining is not None:
            await self._joining.keep(arrivals)
        for refused in await self._windowing.take(items, self._before_ms):
            item = refused.item
            self._put_aside("late", item.value, item.at_ms, f"{refused.windows} of its windows were closed for good")
        self.store.view.events += len(events)

    def _read(self, event: Event, partitions: int, arrivals: list[Arrival], items: list[Item]) -> None:
        """Ask the user's functions about an event, before any state changes."""
        at_ms: int | None = None
        try:
            for source in self._view.sources_of(event):
                at_ms = _ms(source.at(event))
                if at_ms > self.now_ms + self._view.ahead_ms:
                    self._put_aside("ahead", event, at_ms, "its time lies ahead of the clock")
                    return
                self._hear(event, at_ms, partitions)
                if source.where is not None and not source.where(event):
                    continue
                key = key_of(source.keys.values(), event)
                if self._joining is None:
                    items.append(item_of(self._view.aggregates, event, at_ms, key))
                elif at_ms < self._before_ms:
                    self._put_aside("late", event, at_ms, "the join has passed its time")
                else:
                    arrivals.append(Arrival(event, at_ms, key, source.side))
        except Exception as error:
            self._put_aside("failed", event, at_ms, refused_why(error))

    def _hear(self, event: Event, at_ms: int, partitions: int) -> None:
        cls = type(event)
        key = str(getattr(event, cls.event_key)) if cls.event_key else ""
        place = (cls.__name__, zlib.crc32(key.encode()) % partitions)
        self.progress.hear(*place, at_ms, self.now_ms)
        self._heard.add(place)

    async def advance(self) -> list[WindowState]:
        """Let the watermark go as far as it may. Returns the windows that were closed."""
        self.store.view.watermark_ms = watermark_ms = self.progress.advance(self.now_ms)
        if self._joining is not None:
            while (met := await self._joining.take(watermark_ms)) is not None:
                await self._windowing.take(self._items_of(met), BEGINNING)
        told: list[WindowState] = []
        down_ms = watermark_ms - self.held_back_ms
        await self._windowing.close(down_ms, told.append)
        if told and self._view.keep_ms:
            await self.store.remove_rows(down_ms - self._view.keep_ms)
        return told

    def _items_of(self, met: Sequence[Any]) -> list[Item]:
        join = self._view.definition.join
        assert join is not None
        items: list[Item] = []
        for pair, at_ms in met:
            try:
                items.append(item_of(self._view.aggregates, pair, at_ms, key_of(join.keys.values(), pair)))
            except Exception as error:
                self._put_aside("failed", pair.left, at_ms, refused_why(error))
        return items

    async def finish(self) -> None:
        await self.store.put_aside(self._aside)
        await self.store.save_heard((place, self.progress.heard[place]) for place in self._heard)
        await self.store.save_view()

    def _put_aside(self, reason: str, value: Any, at_ms: int | None, detail: str) -> None:
        view = self.store.view
        event = value if isinstance(value, Event) else value.left
        self._aside.append(aside(reason, event, at_ms, self._before_ms, detail, encode_event(event)))
        if reason == "late":
            view.late += 1
        elif reason == "ahead":
            view.ahead += 1
        else:
            view.failed += 1


def materialise(
    module: Module,
    name: str,
    definition: Definition[E],
    *,
    version: int = 1,
    keep_s: float = 604_800.0,
    on_close: OnClose | None = None,
    idle_s: float = 15.0,
    ahead_s: float = 60.0,
    batch: int = 500,
) -> View:
    """Keep a windowed aggregate as a view of ``module``, which any module may query with :class:`~.views.Views`.

    Its columns are the keys, ``start_ms`` and ``end_ms`` (milliseconds since the epoch), the aggregates, and
    ``closed``: 0 while events are expected, then 1. A row appears with the window's first event and changes with each
    batch.

    Args:
        version: raise it when the definition changes: the view is built anew from the log, beside the old one, and
            takes its place when it has seen as much.
        keep_s: a row leaves the view so long after its window's end, in event time; 0 keeps all.
        on_close: makes an event of this module of each window that is closed; None for no event.
        idle_s: a partition from which nothing comes for so long no longer holds the watermark; when nothing comes
            at all, event time goes on with the clock. Longer than events may be on their way.
        ahead_s: an event whose time lies further ahead of the clock is put aside: it would make all others late.
        batch: how many events commit as one.
    """
    check_name(name, "a view")
    if version < 1 or keep_s < 0 or idle_s <= 0 or ahead_s < 0:
        raise StreamDeclarationError(
            f"the view {name!r} has version={version}, keep_s={keep_s:g}, idle_s={idle_s:g}, ahead_s={ahead_s:g}",
            "version is at least 1, idle_s above 0, keep_s and ahead_s at least 0.",
            place=module.place,
        )
    if name in module.views:
        raise StreamDeclarationError(
            f"module {module.name!r} has two views called {name!r}", "Rename one of them.", place=module.place
        )
    view = View(name, definition, version=version, keep_s=keep_s, on_close=on_close, idle_s=idle_s, ahead_s=ahead_s)
    for event in view.events.values():
        group = f"{name}_{version}_{event.__name__.lower()}"
        listen = module.on(event, group=group, batch=batch, batch_wait_s=FEED_WAIT_S, concurrency=1, start="earliest")
        listen(_handler(view))
    _live(module, view)
    module.views.append(name)
    return view


def _handler(view: View) -> Callable[..., Any]:
    async def feed(events: list[Event], db: Database, clock: Clock, settings: Settings) -> None:
        await view.take(db, clock, events, partitions=settings.events.partitions)

    async def feed_and_tell(
        events: list[Event], db: Database, clock: Clock, settings: Settings, publisher: Events
    ) -> None:
        await view.take(db, clock, events, partitions=settings.events.partitions, publisher=publisher)

    return feed if view.on_close is None else feed_and_tell


def _live(module: Module, view: View) -> None:
    """Bring the view up and down with its module."""

    async def start(db: Database, clock: Clock) -> None:
        await view.prepare(db, clock)
        view.keep_time(db, clock, None)

    async def start_and_tell(db: Database, clock: Clock, publisher: Events) -> None:
        await view.prepare(db, clock)
        view.keep_time(db, clock, publisher)

    async def stop(db: Database) -> None:
        await view.close(db)

    module.startup(start if view.on_close is None else start_and_tell)
    module.shutdown(stop)


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // _MS


def _join_shape(definition: Definition[Any]) -> str:
    join = definition.join
    return "no" if join is None else f"{join.within_ms} {join.before_ms} {join.left_outer} {join.latest}"
