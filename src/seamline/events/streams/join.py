"""Two streams become one of pairs, in the order of event time.

What comes is kept until the watermark has passed it, then taken in order: a left event waits for its partners, a right
one finds those that wait. So the pairs do not depend on the order of arrival.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, delete, insert, select, update

from seamline.events.codec import encode_event
from seamline.events.streams import tables
from seamline.events.streams.errors import StreamStateError
from seamline.events.streams.store import ASKED_AT_ONCE, Store
from seamline.events.streams.stream import Join, Pair
from seamline.kernel.codec import CodecError, codec
from seamline.module.values import Event

TAKEN_AT_ONCE: Final = 1_000
_ARRIVED, _LEFT, _RIGHT = 0, 1, 2


class Arrival(NamedTuple):
    """An event on its way into a join."""

    event: Event
    at_ms: int
    key: str
    side: int


class Met(NamedTuple):
    pair: Pair[Any, Any]
    at_ms: int


@dataclass(slots=True)
class _Waiting:
    id: int
    at_ms: int
    event: Event
    matched: bool
    known: bool
    """As the row has it."""


class Joining:
    """The join of one view.

    Args:
        events: the classes of both sides, by name.
    """

    def __init__(self, join: Join, events: dict[str, type[Event]], store: Store) -> None:
        self._join = join
        self._events = events
        self._store = store
        self._view = store.view.id

    async def keep(self, arrivals: Sequence[Arrival]) -> None:
        """Until the watermark has passed them."""
        rows = [
            {
                "view": self._view, "phase": _ARRIVED, "at_ms": each.at_ms, "side": each.side, "key": each.key,
                "event": type(each.event).__name__, "data": encode_event(each.event), "matched": 0,
            }
            for each in arrivals
        ]  # fmt: skip
        if rows:
            await self._store.connection.execute(insert(tables.joins), rows)

    async def take(self, watermark_ms: int) -> list[Met] | None:
        """Some of what the watermark has passed, as pairs; None when nothing is left."""
        table, connection = tables.joins, self._store.connection
        rows = (
            await connection.execute(
                select(table)
                .where(table.c.view == self._view, table.c.phase == _ARRIVED, table.c.at_ms <= watermark_ms)
                .order_by(table.c.at_ms, table.c.side, table.c.id)
                .limit(TAKEN_AT_ONCE)
            )
        ).all()
        if not rows:
            return await self._expire(watermark_ms)
        return await _Round(self, await self._waiting({row.key for row in rows})).run(rows)

    async def _waiting(self, keys: set[str]) -> dict[str, tuple[list[_Waiting], list[_Waiting]]]:
        """Left and right events that wait, in the order of time."""
        table = tables.joins
        found: dict[str, tuple[list[_Waiting], list[_Waiting]]] = {key: ([], []) for key in keys}
        asked = sorted(keys)
        for at in range(0, len(asked), ASKED_AT_ONCE):
            rows = await self._store.connection.execute(
                select(table)
                .where(
                    table.c.view == self._view,
                    table.c.key.in_(asked[at : at + ASKED_AT_ONCE]),
                    table.c.phase.in_((_LEFT, _RIGHT)),
                )
                .order_by(table.c.at_ms, table.c.id)
            )
            for row in rows:
                lefts, rights = found[row.key]
                (lefts if row.phase == _LEFT else rights).append(self.waiting(row))
        return found

    def waiting(self, row: Any) -> _Waiting:
        return _Waiting(row.id, row.at_ms, self._event(row), bool(row.matched), bool(row.matched))

    def _event(self, row: Any) -> Event:
        cls = self._events.get(row.event)
        try:
            if cls is not None:
                return codec(cls).decode(row.data)
        except CodecError as error:
            detail = error.fact
        else:
            detail = "the code has no such event"
        raise StreamStateError(
            f"the view keeps an event {row.event!r} that does not fit ({detail})",
            "Raise `version=` of the view, so that it is built anew from the log.",
        )

    async def _expire(self, watermark_ms: int) -> list[Met] | None:
        """Let go of what can meet nobody any more; a left event that met nobody is a pair of its own."""
        table, connection, join = tables.joins, self._store.connection, self._join
        rows = (
            await connection.execute(
                select(table)
                .where(
                    table.c.view == self._view,
                    table.c.phase == _LEFT,
                    table.c.at_ms < watermark_ms - join.within_ms,
                )
                .order_by(table.c.at_ms, table.c.id)
                .limit(TAKEN_AT_ONCE)
            )
        ).all()
        if not rows:
            if join.before_ms:
                over = (table.c.view == self._view, table.c.phase == _RIGHT)
                await connection.execute(delete(table).where(*over, table.c.at_ms < watermark_ms - join.before_ms))
            return None
        await self.remove([row.id for row in rows])
        return [Met(Pair(self._event(row), None), row.at_ms) for row in rows if join.left_outer and not row.matched]

    async def remove(self, ids: Sequence[int]) -> None:
        if ids:
            await self._store.connection.execute(
                delete(tables.joins).where(tables.joins.c.id == bindparam("row")), [{"row": each} for each in ids]
            )

    async def move(self, ids: Sequence[tuple[int, int]]) -> None:
        """To the phase that each now has."""
        if ids:
            await self._store.connection.execute(
                update(tables.joins).where(tables.joins.c.id == bindparam("row")).values(phase=bindparam("to")),
                [{"row": each, "to": phase} for each, phase in ids],
            )

    async def mark(self, ids: Sequence[int]) -> None:
        if ids:
            await self._store.connection.execute(
                update(tables.joins).where(tables.joins.c.id == bindparam("row")).values(matched=1),
                [{"row": each} for each in ids],
            )

    @property
    def join(self) -> Join:
        return self._join


class _Round:
    """Some events in the order of time, among those that wait."""

    def __init__(self, joining: Joining, waiting: dict[str, tuple[list[_Waiting], list[_Waiting]]]) -> None:
        self._joining = joining
        self._join = joining.join
        self._waiting = waiting
        self._met: list[Met] = []
        self._gone: list[int] = []

    async def run(self, rows: Sequence[Any]) -> list[Met]:
        moved: list[tuple[int, int]] = []
        for row in rows:
            each = self._joining.waiting(row)
            lefts, rights = self._waiting[row.key]
            stays = (self._left if row.side == 0 else self._right)(each, lefts, rights)
            if stays:
                moved.append((each.id, _LEFT if row.side == 0 else _RIGHT))
            else:
                self._gone.append(each.id)
        gone = set(self._gone)
        await self._joining.move([each for each in moved if each[0] not in gone])
        await self._joining.mark(
            [each.id for lefts, _ in self._waiting.values() for each in lefts if each.matched and not each.known]
        )
        await self._joining.remove(self._gone)
        return self._met

    def _left(self, each: _Waiting, lefts: list[_Waiting], rights: list[_Waiting]) -> bool:
        join = self._join
        for right in rights:
            if each.at_ms - join.before_ms <= right.at_ms <= each.at_ms + join.within_ms:
                self._pair(each, right.event)
        if join.latest:
            for before in lefts:
                self._gone.append(before.id)
                if join.left_outer and before.at_ms + join.within_ms < each.at_ms:
                    self._met.append(Met(Pair(before.event, None), before.at_ms))
            lefts.clear()
        lefts.append(each)
        return True

    def _right(self, each: _Waiting, lefts: list[_Waiting], rights: list[_Waiting]) -> bool:
        join = self._join
        for left in list(lefts):
            if left.at_ms - join.before_ms <= each.at_ms <= left.at_ms + join.within_ms:
                self._pair(left, each.event)
                if join.latest:
                    lefts.remove(left)
                    self._gone.append(left.id)
        if join.before_ms:
            rights.append(each)
        return join.before_ms > 0

    def _pair(self, left: _Waiting, right: Event) -> None:
        left.matched = True
        self._met.append(Met(Pair(left.event, right), left.at_ms))
