"""Features kept: fed by events in the transaction that notes them as handled, looked up online, joined offline."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import BigInteger, bindparam, case, delete, func, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.kernel.clock import Clock, now_ms
from seamline.kernel.store import Database
from seamline.models.features import tables
from seamline.models.features.definition import (
    ROWS_MAX,
    Case,
    Cell,
    FeatureSet,
    Row,
    Vector,
    in_order,
    milliseconds,
)
from seamline.models.features.errors import FeatureDeclarationError, FeatureStateError
from seamline.module.module import Module
from seamline.module.values import Event

_log = logging.getLogger("seamline.models.features")
_DAY_MS: Final = 86_400_000
_TIDY_EVERY_MS: Final = 600_000
_ENTITIES_AT_ONCE: Final = 200

_rows, _sets = tables.rows, tables.sets
_COLUMNS: Final = (_rows.c.entity, _rows.c.id, _rows.c.at_ms, _rows.c.known_ms, _rows.c.stream, _rows.c.content)
# Statements of every look-up are made once: making one costs as much as running it.
_SEEN = select(func.coalesce(func.max(_rows.c.id), 0))
_NOW = (
    select(*_COLUMNS)
    .where(
        _rows.c.set == bindparam("a_set"),
        _rows.c.entity == bindparam("an_entity"),
        _rows.c.at_ms > bindparam("after_ms"),
        _rows.c.at_ms <= bindparam("by_ms"),
        _rows.c.id <= bindparam("seen"),
    )
    .order_by(_rows.c.at_ms.desc(), _rows.c.id.desc())
    .limit(ROWS_MAX)
)
_INSERT = insert(_rows)
_NEWEST = bindparam("newest", type_=BigInteger())
_TELL = (
    update(_sets)
    .where(_sets.c.id == bindparam("a_set"))
    .values(
        newest_ms=case((_sets.c.newest_ms < _NEWEST, _NEWEST), else_=_sets.c.newest_ms),
        known_ms=bindparam("known"),
        events=_sets.c.events + bindparam("more"),
        late=_sets.c.late + bindparam("more_late"),
        failed=_sets.c.failed + bindparam("more_failed"),
    )
)
_PAST = select(*_COLUMNS).where(
    _rows.c.set == bindparam("a_set"),
    _rows.c.entity.in_(bindparam("entities", expanding=True)),
    _rows.c.at_ms > bindparam("after_ms"),
    _rows.c.at_ms <= bindparam("by_ms"),
)


class FeatureTable:
    """One set of features of one module. Made by :func:`keep`.

    Args:
        features: what is kept.
        keep_s: for how long, in event time; at least as long as the longest window.
    """

    def __init__(self, features: FeatureSet, *, keep_s: float) -> None:
        self.features = features
        self._keep_ms = round(keep_s * 1000)
        self._made: dict[Database, tuple[int, int]] = {}
        """The set's number there, and when it was made."""
        self._tidied_ms = 0
        self._values = msgspec.json.Decoder(list[Cell])

    async def prepare(self, database: Database, clock: Clock) -> None:
        """Make the tables where they are absent. Raises FeatureStateError if what is there does not fit the code."""
        await database.ensure(tables.metadata)
        features, at_ms = self.features, now_ms(clock)
        make = (sqlite.insert if database.path is not None else postgresql.insert)(_sets)
        new = make.values(
            name=features.name, version=features.version, shape=features.shape, made_ms=at_ms,
            kept_ms=0, newest_ms=0, known_ms=0, events=0, late=0, failed=0,
        )  # fmt: skip
        found = select(_sets).where(_sets.c.name == features.name, _sets.c.version == features.version)
        async with database.transaction() as connection:
            await connection.execute(new.on_conflict_do_nothing(index_elements=["name", "version"]))
            row = (await connection.execute(found)).one()
        if row.shape != features.shape:
            raise FeatureStateError(
                f"the features {features.name!r} are stored as ({row.shape}), the code says ({features.shape})",
                f"Write version={row.version + 1}: it is then built anew from the log.",
            )
        self._made[database] = row.id, row.made_ms

    # Events come in.

    async def take(self, database: Database, clock: Clock, events: Sequence[Event]) -> None:
        """Keep what events say. In a unit of work of the module's database it commits with that."""
        async with database.transaction() as connection:
            await self._take(database, connection, clock, events)

    async def _take(
        self, database: Database, connection: AsyncConnection, clock: Clock, events: Sequence[Event]
    ) -> None:
        number, made_ms = self._made[database]
        if database.path is None:
            # Ids must become visible in their order, so whoever writes rows waits for the one before.
            lock = {"name": f"seamline features {database.module}"}
            await connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), lock)
        at_ms = now_ms(clock)
        new: list[dict[str, Any]] = []
        late = failed = newest_ms = 0
        for event in events:
            try:
                read = self.features.read(event)
            except Exception as error:
                failed += 1
                _log.warning("the features %s leave out %s: %s", self.features.name, type(event).__name__, error)
                continue
            for entity, event_ms, stream, values in read:
                if event_ms < at_ms - self._keep_ms:
                    late += 1
                    continue
                newest_ms = max(newest_ms, event_ms)
                new.append(
                    {
                        "set": number,
                        "entity": entity,
                        "stream": stream,
                        "at_ms": event_ms,
                        "known_ms": event_ms if event_ms < made_ms else at_ms,
                        "content": msgspec.json.encode(values).decode(),
                    }
                )
        if new:
            await connection.execute(_INSERT, new)
        told = {"newest": newest_ms, "known": at_ms, "more": len(events), "more_late": late, "more_failed": failed}
        await connection.execute(_TELL, {"a_set": number, **told})
        if at_ms - self._tidied_ms >= _TIDY_EVERY_MS:
            self._tidied_ms = at_ms
            await self._tidy(connection, number, at_ms - self._keep_ms)

    async def _tidy(self, connection: AsyncConnection, number: int, before_ms: int) -> None:
        gone = await connection.execute(delete(_rows).where(_rows.c.set == number, _rows.c.at_ms < before_ms))
        if gone.rowcount:
            await connection.execute(update(_sets).where(_sets.c.id == number).values(kept_ms=before_ms))

    # Features come out.

    async def now(self, database: Database, clock: Clock, entity: str) -> Vector:
        """The features of an entity as they stand."""
        at = clock.now()
        at_ms = milliseconds(at)
        asked = {
            "a_set": self._made[database][0],
            "an_entity": entity,
            "after_ms": at_ms - self.features.horizon_ms,
            "by_ms": at_ms,
        }
        async with database.read() as connection:
            seen = await connection.scalar(_SEEN) or 0
            found = (await connection.execute(_NOW, {**asked, "seen": seen})).all()
        rows = [self._row(each) for each in reversed(found)]
        return Vector(entity, at, self.features.compute(rows, at_ms), seen)

    async def at(self, database: Database, cases: Sequence[Case]) -> list[Vector]:
        """The features of each case as they stood: the point-in-time join. See :class:`Case`."""
        vectors: list[Vector | None] = [None] * len(cases)
        by_entity: dict[str, list[int]] = {}
        for place, each in enumerate(cases):
            by_entity.setdefault(each.entity, []).append(place)
        entities = list(by_entity)
        for first in range(0, len(entities), _ENTITIES_AT_ONCE):
            some = entities[first : first + _ENTITIES_AT_ONCE]
            places = [place for entity in some for place in by_entity[entity]]
            asked = [cases[place] for place in places]
            rows, kept_ms = await self._past(database, some, [milliseconds(case.at) for case in asked])
            for place, vector in zip(places, self.features.join(rows, asked), strict=True):
                complete = milliseconds(vector.at) - self.features.horizon_ms >= kept_ms
                vectors[place] = dataclasses.replace(vector, complete=complete)
        return [vector for vector in vectors if vector is not None]

    async def _past(
        self, database: Database, entities: Sequence[str], times_ms: Sequence[int]
    ) -> tuple[dict[str, list[Row]], int]:
        asked = {
            "a_set": self._made[database][0],
            "entities": list(entities),
            "after_ms": min(times_ms) - self.features.horizon_ms,
            "by_ms": max(times_ms),
        }
        kept = select(_sets.c.kept_ms).where(_sets.c.id == self._made[database][0])
        rows: dict[str, list[Row]] = {}
        async with database.read() as connection:
            for each in await connection.execute(_PAST, asked):
                rows.setdefault(each.entity, []).append(self._row(each))
            kept_ms = await connection.scalar(kept) or 0
        return {entity: in_order(found) for entity, found in rows.items()}, kept_ms

    def _row(self, row: Any) -> Row:
        return Row(row.id, row.at_ms, row.known_ms, row.stream, self._values.decode(row.content))

    # Care.

    async def forget(self, database: Database, entity: str) -> int:
        """Drop all that is kept of an entity; how many rows."""
        mine = (_rows.c.set == self._made[database][0]) & (_rows.c.entity == entity)
        async with database.transaction() as connection:
            return (await connection.execute(delete(_rows).where(mine))).rowcount

    async def stats(self, database: Database, clock: Clock) -> dict[str, Any]:
        """How fresh they are, and what was left out; for JSON."""
        async with database.read() as connection:
            row = (await connection.execute(select(_sets).where(_sets.c.id == self._made[database][0]))).one()
        return {
            "name": row.name,
            "version": row.version,
            "events": row.events,
            "late": row.late,
            "failed": row.failed,
            "newest_ms": row.newest_ms,
            "known_ms": row.known_ms,
            "quiet_s": round(max(now_ms(clock) - row.known_ms, 0) / 1000, 3) if row.known_ms else None,
        }


def keep(
    module: Module, features: FeatureSet, *, keep_s: float = 90 * 86_400.0, batch: int = 500, wait_s: float = 0.1
) -> FeatureTable:
    """Keep features in ``module``'s database, fed by its events from the log's beginning on.

    Args:
        keep_s: an event is kept for so long; one that is older when it comes is left out, and counted as late.
        batch: how many events commit as one.
        wait_s: how long an event waits for others, to commit with them. Meanwhile no look-up sees it.
    """
    if round(keep_s * 1000) < features.horizon_ms:
        raise FeatureDeclarationError(
            f"the features {features.name!r} look back {features.horizon_ms / 1000:g} s and are kept for {keep_s:g} s",
            "Keep them for at least as long as their longest window.",
            place=module.place,
        )
    table = FeatureTable(features, keep_s=keep_s)
    for event in features.events:
        group = f"features_{features.name}_{features.version}_{event.__name__.lower()}"
        module.on(event, group=group, batch=batch, batch_wait_s=wait_s, concurrency=1, start="earliest")(_feed(table))

    async def start(db: Database, clock: Clock) -> None:
        await table.prepare(db, clock)

    module.startup(start)
    return table


def _feed(table: FeatureTable) -> Callable[..., Any]:
    async def feed(events: list[Event], db: Database, clock: Clock) -> None:
        await table.take(db, clock, events)

    return feed
