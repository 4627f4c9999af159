"""What is stored of one view, read and written in the caller's transaction: few statements for many rows."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Table, bindparam, delete, func, insert, select, text, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.streams import tables
from seamline.events.streams.aggregates import Aggregate, Cell
from seamline.events.streams.errors import StreamStateError
from seamline.events.streams.watermark import Heard

ASKED_AT_ONCE: Final = 250
"""Rows looked for by one statement; each may take four parameters."""
CLOSED_AT_ONCE: Final = 2_000

Place = tuple[str, int]
"""A window's key and start."""

# Statements of every batch are made once: making one costs as much as running it.
_windows, _members, _sources = tables.windows, tables.members, tables.sources
_MEMBER = (_members.c.key, _members.c.start_ms, _members.c.aggregate, _members.c.member)
_WINDOWS_AT = select(_windows).where(
    _windows.c.view == bindparam("a_view"),
    tuple_(_windows.c.key, _windows.c.start_ms).in_(bindparam("places", expanding=True)),
)
_WINDOWS_OF = select(_windows).where(
    _windows.c.view == bindparam("a_view"),
    _windows.c.key.in_(bindparam("keys", expanding=True)),
    _windows.c.start_ms <= bindparam("last_ms"),
    _windows.c.end_ms >= bindparam("first_ms"),
)
_ENDED = (
    select(_windows)
    .where(
        _windows.c.view == bindparam("a_view"),
        _windows.c.closed == bindparam("is_closed"),
        _windows.c.end_ms <= bindparam("by_ms"),
    )
    .order_by(_windows.c.end_ms)
    .limit(CLOSED_AT_ONCE)
)
_WEIGHTS = select(*_MEMBER, _members.c.weight).where(
    _members.c.view == bindparam("a_view"), tuple_(*_MEMBER).in_(bindparam("wanted", expanding=True))
)
_HEARD = select(_sources).where(_sources.c.view == bindparam("a_view"))
_SAVE_VIEW = (
    update(tables.views)
    .where(tables.views.c.id == bindparam("a_view"))
    .values({name: bindparam(f"new_{name}") for name in ("watermark_ms", "events", "late", "ahead", "failed")})
)
_MAY_BE_DUE = """
SELECT v.state = 'building'
    OR EXISTS (SELECT 1 FROM seamline_stream_windows WHERE "view" = v.id AND closed = 0 AND end_ms <= :down_ms)
    OR EXISTS (SELECT 1 FROM seamline_stream_windows WHERE "view" = v.id AND closed = 1 AND end_ms <= :gone_ms)
    OR EXISTS (SELECT 1 FROM seamline_stream_joins WHERE "view" = v.id AND phase = 0 AND at_ms <= :by_ms)
    OR EXISTS (SELECT 1 FROM seamline_stream_joins WHERE "view" = v.id AND phase = 1 AND at_ms < :down_ms)
FROM seamline_stream_views v WHERE v.name = :name AND v.version = :version AND v.state <> 'retired'
"""


def may_be_due(sqlite: sqlite3.Connection, name: str, version: int, by_ms: int, down_ms: int, late_ms: int) -> bool:
    """Whether there could be work for a view if its watermark were at ``by_ms``, and behind the join at ``down_ms``:
    the question of every tick, at a tenth of what the full answer costs."""
    named = {"name": name, "version": version, "by_ms": by_ms, "down_ms": down_ms, "gone_ms": down_ms - late_ms}
    row = sqlite.execute(_MAY_BE_DUE, named).fetchone()
    return row is not None and bool(row[0])


@dataclass(slots=True)
class WindowState:
    """A window: its bounds, and one state for each aggregate."""

    key: str
    start_ms: int
    end_ms: int
    states: list[Any]
    closed: bool = False
    revision: int = 0

    @property
    def place(self) -> Place:
        return self.key, self.start_ms


@dataclass(slots=True)
class ViewRow:
    """How far a version of a view is, and what it has seen."""

    id: int
    version: int
    state: str
    watermark_ms: int
    events: int
    late: int
    ahead: int
    failed: int


@dataclass(frozen=True, slots=True)
class PutAside:
    """An event that no window took: it came ``late``, its time lies ``ahead`` of the clock, or a function of the view
    ``failed`` on it."""

    reason: str
    event: str
    at_ms: int | None
    watermark_ms: int
    detail: str
    data: bytes


@dataclass(slots=True)
class Store:
    """One version of a view in a database.

    Args:
        connection: of the transaction under way.
        rows: the table that is queried.
    """

    connection: AsyncConnection
    view: ViewRow
    aggregates: Sequence[Aggregate[Any]]
    key_names: tuple[str, ...]
    rows: Table

    # Windows.

    async def windows_at(self, places: Iterable[Place]) -> dict[Place, WindowState]:
        """Those that are there, by key and start."""
        found = dict[Place, WindowState]()
        for chunk in _chunks(list(places)):
            rows = await self.connection.execute(_WINDOWS_AT, {"a_view": self.view.id, "places": chunk})
            found.update((state.place, state) for state in map(self._window, rows))
        return found

    async def windows_of(self, keys: Iterable[str], first_ms: int, last_ms: int) -> list[WindowState]:
        """All windows of some keys that touch a span of time, bounds included."""
        found = list[WindowState]()
        for chunk in _chunks(list(keys)):
            named = {"a_view": self.view.id, "keys": chunk, "first_ms": first_ms, "last_ms": last_ms}
            rows = await self.connection.execute(_WINDOWS_OF, named)
            found.extend(map(self._window, rows))
        return found

    async def windows_to_close(self, watermark_ms: int) -> list[WindowState]:
        return await self._ended(watermark_ms, closed=0)

    async def windows_to_forget(self, watermark_ms: int) -> list[WindowState]:
        return await self._ended(watermark_ms, closed=1)

    async def _ended(self, by_ms: int, *, closed: int) -> list[WindowState]:
        named = {"a_view": self.view.id, "is_closed": closed, "by_ms": by_ms}
        rows = await self.connection.execute(_ENDED, named)
        return [self._window(row) for row in rows]

    def _window(self, row: Any) -> WindowState:
        stored = msgspec.json.decode(row.state, type=list[Any])
        if len(stored) != len(self.aggregates):
            raise StreamStateError(
                f"a window of {self.rows.name!r} has {len(stored)} aggregates, the code {len(self.aggregates)}",
                "Raise `version=` of the view when it changes, so that it is built anew.",
            )
        states = [each.load(state) for each, state in zip(self.aggregates, stored, strict=True)]
        return WindowState(row.key, row.start_ms, row.end_ms, states, bool(row.closed), row.revision)

    async def save(self, windows: Sequence[WindowState]) -> None:
        """Write windows, and their rows in the view."""
        if not windows:
            return
        await self._upsert(
            tables.windows,
            [
                {
                    "view": self.view.id,
                    "key": each.key,
                    "start_ms": each.start_ms,
                    "end_ms": each.end_ms,
                    "state": msgspec.json.encode(
                        [kind.dump(state) for kind, state in zip(self.aggregates, each.states, strict=True)]
                    ),
                    "closed": int(each.closed),
                    "revision": each.revision,
                }
                for each in windows
            ],
        )
        await self._upsert(self.rows, [self._row(each) for each in windows])

    def _row(self, window: WindowState) -> dict[str, Cell]:
        values = self.results(window)
        keys = dict(zip(self.key_names, msgspec.json.decode(window.key, type=list[str]), strict=True))
        bounds = {"start_ms": window.start_ms, "end_ms": window.end_ms, "closed": int(window.closed)}
        return {**keys, **bounds, **values}

    def results(self, window: WindowState) -> dict[str, Cell]:
        """What the view shows, by column."""
        names = [column.name for column in self.rows.columns][len(self.key_names) + 2 : -1]
        return {
            name: each.result(state) for name, each, state in zip(names, self.aggregates, window.states, strict=True)
        }

    async def remove(self, windows: Sequence[WindowState]) -> None:
        """Take windows that became part of another out of the view. Their members are moved before."""
        await self._delete(tables.windows, windows)
        keys = [
            dict(zip(self.key_names, msgspec.json.decode(each.key, type=list[str]), strict=True)) for each in windows
        ]
        if windows:
            columns = ["start_ms", *self.key_names]
            where = " AND ".join(f"{name} = :{name}" for name in columns)
            await self.connection.execute(
                text(f"DELETE FROM {self.rows.name} WHERE {where}"),  # noqa: S608  # names were checked when declared
                [{"start_ms": each.start_ms, **key} for each, key in zip(windows, keys, strict=True)],
            )

    async def forget(self, windows: Sequence[WindowState]) -> None:
        """Let go of what would be needed to change them. Their rows stay in the view."""
        await self._delete(tables.windows, windows)
        await self._delete(tables.members, windows)

    async def _delete(self, table: Table, windows: Sequence[WindowState]) -> None:
        if windows:
            await self.connection.execute(
                text(f"DELETE FROM {table.name} WHERE view = :view AND key = :key AND start_ms = :start_ms"),  # noqa: S608
                [{"view": self.view.id, "key": each.key, "start_ms": each.start_ms} for each in windows],
            )

    async def remove_rows(self, before_ms: int) -> None:
        """Retention of the view."""
        await self.connection.execute(delete(self.rows).where(self.rows.c.end_ms <= before_ms))

    async def anything_before(self, watermark_ms: int, down_ms: int, late_ms: int) -> bool:
        """Whether there is work when the watermark, and the one behind the join, come so far."""
        windows, joins = tables.windows, tables.joins
        due = (
            select(windows.c.view).where(windows.c.closed == 0, windows.c.end_ms <= down_ms),
            select(windows.c.view).where(windows.c.closed == 1, windows.c.end_ms <= down_ms - late_ms),
        )
        for question in due:
            if (await self.connection.execute(question.where(windows.c.view == self.view.id).limit(1))).first():
                return True
        arrived = joins.c.phase == 0, joins.c.at_ms <= watermark_ms
        left = joins.c.phase == 1, joins.c.at_ms < down_ms
        for where in (arrived, left):
            question = select(joins.c.id).where(joins.c.view == self.view.id, *where).limit(1)
            if (await self.connection.execute(question)).first():
                return True
        return False

    # Members.

    async def weights(self, wanted: Iterable[tuple[str, int, int, str]]) -> dict[tuple[str, int, int, str], int]:
        """By key, start, aggregate and member."""
        found = dict[tuple[str, int, int, str], int]()
        for chunk in _chunks(list(wanted)):
            rows = await self.connection.execute(_WEIGHTS, {"a_view": self.view.id, "wanted": chunk})
            found.update(((row[0], row[1], row[2], row[3]), row[4]) for row in rows)
        return found

    async def save_weights(self, weights: Iterable[tuple[tuple[str, int, int, str], int]]) -> None:
        found = [
            {
                "view": self.view.id, "key": key, "start_ms": start_ms, "aggregate": aggregate, "member": member,
                "weight": weight,
            }
            for (key, start_ms, aggregate, member), weight in weights
        ]  # fmt: skip
        if found:
            await self._upsert(tables.members, found)

    async def move_members(self, key: str, from_ms: int, to_ms: int) -> None:
        """Add the members of one window to those of another."""
        where = {"view": self.view.id, "key": key, "old": from_ms, "new": to_ms}
        await self.connection.execute(
            text(
                "INSERT INTO seamline_stream_members (view, key, start_ms, aggregate, member, weight) "
                "SELECT view, key, :new, aggregate, member, weight FROM seamline_stream_members "
                "WHERE view = :view AND key = :key AND start_ms = :old "
                "ON CONFLICT (view, key, start_ms, aggregate, member) "
                "DO UPDATE SET weight = seamline_stream_members.weight + excluded.weight"
            ).bindparams(new=to_ms),
            where,
        )
        table = tables.members
        await self.connection.execute(
            delete(table).where(table.c.view == self.view.id, table.c.key == key, table.c.start_ms == from_ms)
        )

    async def census(self, place: Place, aggregate: int, first: int) -> tuple[int, list[tuple[str, int]]]:
        """How many members, and the heaviest of them."""
        table = tables.members
        where = (
            table.c.view == self.view.id, table.c.key == place[0], table.c.start_ms == place[1],
            table.c.aggregate == aggregate,
        )  # fmt: skip
        many = await self.connection.scalar(select(func.count()).select_from(table).where(*where)) or 0
        heaviest = await self.connection.execute(
            select(table.c.member, table.c.weight)
            .where(*where)
            .order_by(table.c.weight.desc(), table.c.member)
            .limit(first)
        )
        return many, [(row[0], row[1]) for row in heaviest]

    # Progress.

    async def heard(self) -> list[tuple[str, int, Heard]]:
        rows = await self.connection.execute(_HEARD, {"a_view": self.view.id})
        return [(row.event, row.partition, Heard(row.newest_ms, row.seen_ms)) for row in rows]

    async def save_heard(self, heard: Iterable[tuple[tuple[str, int], Heard]]) -> None:
        await self._upsert(
            tables.sources,
            [
                {
                    "view": self.view.id, "event": event, "partition": partition,
                    "newest_ms": each.newest_ms, "seen_ms": each.seen_ms,
                }
                for (event, partition), each in heard
            ],
        )  # fmt: skip

    async def save_view(self) -> None:
        view = self.view
        counts = {"new_events": view.events, "new_late": view.late, "new_ahead": view.ahead, "new_failed": view.failed}
        await self.connection.execute(_SAVE_VIEW, {"a_view": view.id, "new_watermark_ms": view.watermark_ms, **counts})

    async def put_aside(self, events: Sequence[PutAside]) -> None:
        """Keep events that no window took, the newest of them."""
        if not events:
            return
        table = tables.aside
        await self.connection.execute(
            insert(table),
            [
                {
                    "view": self.view.id, "reason": each.reason, "event": each.event, "at_ms": each.at_ms,
                    "watermark_ms": each.watermark_ms, "detail": each.detail, "data": each.data,
                }
                for each in events
            ],
        )  # fmt: skip
        oldest = (
            select(table.c.id)
            .where(table.c.view == self.view.id)
            .order_by(table.c.id.desc())
            .offset(tables.PUT_ASIDE_KEPT)
            .limit(1)
        )
        last = await self.connection.scalar(oldest)
        if last is not None:
            await self.connection.execute(delete(table).where(table.c.view == self.view.id, table.c.id <= last))

    async def _upsert(self, table: Table, rows: Sequence[dict[str, Any]]) -> None:
        if not rows:
            return
        await self.connection.execute(upsert(table, self.connection.dialect.name), rows)


@functools.lru_cache(maxsize=256)
def upsert(table: Table, dialect: str) -> Any:
    """Insert, or replace the row with the same primary key."""
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = make(table)
    keys = [column.name for column in table.primary_key.columns]
    rest = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=rest)


def _chunks(items: list[Any]) -> Iterable[list[Any]]:
    return (items[at : at + ASKED_AT_ONCE] for at in range(0, len(items), ASKED_AT_ONCE))
