"""Versions of a view: a new one is built beside the old one from the log, and takes its place in one transaction."""

from __future__ import annotations

import logging
from typing import Any, Final

from sqlalchemy import Table, bindparam, delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.streams import tables
from seamline.events.streams.errors import StreamStateError
from seamline.events.streams.store import ViewRow
from seamline.events.streams.watermark import BEGINNING, Progress

_log = logging.getLogger("seamline.events.streams")

REPLAY_OVER_MS: Final = 60_000
"""When a version that is built hears nothing for so long, the log holds no more."""
_BUILDING, _LIVE, _RETIRED = "building", "live", "retired"
_FIND: Final = select(tables.views).where(
    tables.views.c.name == bindparam("a_name"),
    tables.views.c.version == bindparam("a_version"),
    tables.views.c.state != _RETIRED,
)


async def begin(connection: AsyncConnection, module: str, name: str, version: int, rows: Table, shape: str) -> None:
    """Note that a version exists, and make the SQL view if it is the first."""
    await _take_turn(connection, module, name)
    await _make_status(connection)
    table = tables.views
    known = (await connection.execute(select(table).where(table.c.name == name))).all()
    for row in known:
        if row.version == version:
            _check(row, name, shape)
            return
    state = _BUILDING if known else _LIVE
    if state == _LIVE:
        await _show(connection, name, rows)
    else:
        _log.info("the view %s is built anew as version %s", name, version)
    counts = {"events": 0, "late": 0, "ahead": 0, "failed": 0}
    await connection.execute(
        insert(table).values(name=name, version=version, state=state, shape=shape, watermark_ms=BEGINNING, **counts)
    )


def _check(row: Any, name: str, shape: str) -> None:
    if row.state == _RETIRED:
        _log.warning("version %s of the view %s was replaced by a newer one and is not fed", row.version, name)
    elif row.shape != shape:
        raise StreamStateError(
            f"the view {name!r} is stored as ({row.shape}), the code says ({shape})",
            f"Write version={row.version + 1} in materialise(): it is then built anew from the log.",
        )


async def find(connection: AsyncConnection, name: str, version: int) -> ViewRow | None:
    """How far a version is; None when it was replaced."""
    row = (await connection.execute(_FIND, {"a_name": name, "a_version": version})).first()
    if row is None:
        return None
    return ViewRow(row.id, row.version, row.state, row.watermark_ms, row.events, row.late, row.ahead, row.failed)


async def lock(connection: AsyncConnection, module: str, name: str, version: int) -> ViewRow | None:
    """As :func:`find`; nobody else changes the view until the transaction ends."""
    await _take_turn(connection, module, name)
    return await find(connection, name, version)


async def _take_turn(connection: AsyncConnection, module: str, name: str) -> None:
    # SQLite has one writer anyway.
    if connection.dialect.name == "postgresql":
        lock = {"name": f"seamline view {module}.{name}"}
        await connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), lock)


async def swap_if_ready(
    connection: AsyncConnection, view: ViewRow, name: str, rows: Table, progress: Progress, now_ms: int
) -> None:
    """Put a version that has seen as much as the one before it in its place."""
    table = tables.views
    olds = (await connection.execute(select(table).where(table.c.name == name, table.c.version < view.version))).all()
    live = [row for row in olds if row.state != _RETIRED]
    if not await _has_seen_as_much(connection, [row.id for row in live], progress, now_ms):
        return
    await _show(connection, name, rows)
    for row in live:
        for state in (tables.sources, tables.windows, tables.members, tables.joins, tables.aside):
            await connection.execute(delete(state).where(state.c.view == row.id))
        await connection.execute(text(f"DROP TABLE seamline_view_{name}_{int(row.version)}"))
    await connection.execute(update(table).where(table.c.id.in_([row.id for row in live])).values(state=_RETIRED))
    await connection.execute(update(table).where(table.c.id == view.id).values(state=_LIVE))
    view.state = _LIVE
    _log.info("version %s of the view %s has taken its place", view.version, name)


async def _has_seen_as_much(connection: AsyncConnection, olds: list[int], progress: Progress, now_ms: int) -> bool:
    table = tables.sources
    rows = await connection.execute(
        select(table.c.event, func.max(table.c.newest_ms)).where(table.c.view.in_(olds)).group_by(table.c.event)
    )
    wanted = {row[0]: row[1] for row in rows}
    seen: dict[str, int] = {}
    for (event, _), each in progress.heard.items():
        seen[event] = max(seen.get(event, BEGINNING), each.newest_ms)
    if all(seen.get(event, BEGINNING) >= newest for event, newest in wanted.items() if event in progress.events):
        return True
    # What the old one saw may be gone from the log.
    last_ms = max((each.seen_ms for each in progress.heard.values()), default=now_ms)
    return bool(seen) and now_ms - max(last_ms, progress.started_ms) >= REPLAY_OVER_MS


async def _show(connection: AsyncConnection, name: str, rows: Table) -> None:
    columns = ", ".join(column.name for column in rows.columns)
    await connection.execute(text(f"DROP VIEW IF EXISTS {name}"))
    await connection.execute(
        text(f"CREATE VIEW {name} AS SELECT {columns} FROM {rows.name}")  # noqa: S608  # names were checked when declared
    )


async def _make_status(connection: AsyncConnection) -> None:
    columns = ", ".join(tables.STATUS_COLUMNS)
    create = "CREATE OR REPLACE VIEW" if connection.dialect.name == "postgresql" else "CREATE VIEW IF NOT EXISTS"
    await connection.execute(
        text(f"{create} {tables.STATUS} AS SELECT {columns} FROM {tables.views.name}")  # noqa: S608  # all are ours
    )
