"""Events that could not be handled: kept whole, with why, until somebody retries or drops them."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, RowMapping, and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.errors import EventsError, UnknownGroupError
from seamline.events.record import SUBJECT, Record
from seamline.events.tables import dead_letters
from seamline.events.transport import Delivery
from seamline.kernel.clock import Clock, now_ms
from seamline.kernel.store import Database

REASON_CHARACTERS_MAX = 1000
CLAIM_S = 300.0
"""So long nobody else retries what one process has begun to."""

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Record)


class DeadLetters:
    """Of one module."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(
        self,
        connection: AsyncConnection,
        group: str,
        delivery: Delivery,
        error: BaseException,
        *,
        attempts: int,
        first_ms: int,
    ) -> None:
        """Keep what could not be handled, in the transaction that says that it was dealt with.

        After a replay it may be here already, and has one more reason.
        """
        record = delivery.record
        reason, detail = explained(error)
        if isinstance(error, EventsError):
            attempts = max(attempts, error.attempts)
        at_ms = now_ms(self._clock)
        again = update(dead_letters).where(_is(group, record)).values(
            reason=reason, detail=detail, attempts=dead_letters.c.attempts + attempts, last_ms=at_ms, claimed_ms=0
        )  # fmt: skip
        if (await connection.execute(again)).rowcount:
            return
        await connection.execute(
            insert(dead_letters).values(
                consumer_group=group,
                topic=delivery.topic,
                source=record.source,
                event_id=record.id,
                type=record.type,
                event_key=record.key,
                partition=delivery.partition,
                position=delivery.offset,
                reason=reason,
                detail=detail,
                attempts=attempts,
                first_ms=first_ms or at_ms,
                last_ms=at_ms,
                claimed_ms=0,
                record=_ENCODER.encode(record),
            )
        )

    async def list(self, group: str | None = None, *, after: int = 0, limit: int = 100) -> list[dict[str, Any]]:
        """The oldest first, without their data."""
        columns = [column for column in dead_letters.c if column.name != "record"]
        question = select(*columns).where(dead_letters.c.id > after).order_by(dead_letters.c.id).limit(limit)
        if group is not None:
            question = question.where(dead_letters.c.consumer_group == group)
        async with self._database.read() as connection:
            return [_shown(row) for row in (await connection.execute(question)).mappings()]

    async def show(self, number: int) -> dict[str, Any]:
        """One of them with its record. Raises UnknownGroupError."""
        row = await self._row(number)
        record = _DECODER.decode(row["record"])
        shown = msgspec.to_builtins(record, builtin_types=(bytes,))
        shown["data"] = record.data.decode(errors="backslashreplace")
        shown["headers"].pop(SUBJECT, None)
        return {**_shown(row), "record": shown}

    async def delivery(self, number: int) -> tuple[str, Delivery]:
        """The group and what it was handed. Raises UnknownGroupError."""
        row = await self._row(number)
        record = _DECODER.decode(row["record"])
        return row["consumer_group"], Delivery(record, row["topic"], row["partition"], row["position"], None, True)

    async def _row(self, number: int) -> RowMapping:
        async with self._database.read() as connection:
            found = await connection.execute(select(dead_letters).where(dead_letters.c.id == number))
            row = found.mappings().one_or_none()
        if row is None:
            raise UnknownGroupError(
                f"module {self._database.module!r} has no dead letter {number}",
                "It was retried or dropped, or never was: `seamline events dead list` shows what is there.",
            )
        return row

    async def counts(self) -> dict[str, int]:
        """How many each group has."""
        question = select(dead_letters.c.consumer_group, func.count()).group_by(dead_letters.c.consumer_group)
        async with self._database.read() as connection:
            return {str(group): int(number) for group, number in await connection.execute(question)}

    async def numbers(self, group: str | None) -> Sequence[int]:
        """All there are, or all of a group."""
        question = select(dead_letters.c.id).order_by(dead_letters.c.id)
        if group is not None:
            question = question.where(dead_letters.c.consumer_group == group)
        async with self._database.read() as connection:
            return list((await connection.execute(question)).scalars())

    async def claim(self, number: int) -> bool:
        """Whether it is ours to retry now."""
        at_ms = now_ms(self._clock)
        async with self._database.transaction() as connection:
            claimed = await connection.execute(
                update(dead_letters)
                .where(dead_letters.c.id == number, dead_letters.c.claimed_ms <= at_ms - int(CLAIM_S * 1000))
                .values(claimed_ms=at_ms)
            )
            return claimed.rowcount == 1

    async def failed_again(self, number: int, error: BaseException) -> None:
        """A retry came to nothing; the dead letter stays, with the newer reason."""
        reason, detail = explained(error)
        async with self._database.transaction() as connection:
            await connection.execute(
                update(dead_letters)
                .where(dead_letters.c.id == number)
                .values(
                    attempts=dead_letters.c.attempts + 1,
                    last_ms=now_ms(self._clock),
                    reason=reason,
                    detail=detail,
                    claimed_ms=0,
                )
            )

    async def settle(self, connection: AsyncConnection, number: int) -> bool:
        """Take it away, in the transaction of what the retry did; False if it was gone."""
        return (await connection.execute(delete(dead_letters).where(dead_letters.c.id == number))).rowcount == 1

    async def forget(self, connection: AsyncConnection, group: str, records: Sequence[Record]) -> None:
        """These were handled after all, in a replay: a retry would make their effect once more."""
        for record in records:
            await connection.execute(delete(dead_letters).where(_is(group, record)))

    async def drop(self, number: int) -> bool:
        async with self._database.transaction() as connection:
            return await self.settle(connection, number)


def _is(group: str, record: Record) -> ColumnElement[bool]:
    c = dead_letters.c
    return and_(c.consumer_group == group, c.source == record.source, c.event_id == record.id)


def explained(error: BaseException) -> tuple[str, str]:
    """The reason, and where it happened: the last line of the traceback that has a place."""
    if isinstance(error, EventsError):
        return f"{error.code}: {error.fact}"[:REASON_CHARACTERS_MAX], error.place or ""
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    detail = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    return reason[:REASON_CHARACTERS_MAX], detail


def _shown(shown: RowMapping) -> dict[str, Any]:
    return {
        "number": shown["id"],
        "group": shown["consumer_group"],
        "topic": shown["topic"],
        "event": shown["event_id"],
        "type": shown["type"],
        "key": shown["event_key"],
        "partition": shown["partition"],
        "offset": shown["position"],
        "reason": shown["reason"],
        "detail": shown["detail"],
        "attempts": shown["attempts"],
        "first_ms": shown["first_ms"],
        "last_ms": shown["last_ms"],
    }
