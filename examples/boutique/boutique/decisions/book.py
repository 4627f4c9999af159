"""The book of decisions: written once with the event that tells of each, and added to by what a human says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import bindparam, delete, select, text, update

from boutique.decisions import REPLAYED_MAX, Decision, Inputs, Judged, Question, Reason, Score, Verdict
from boutique.decisions.tables import decisions
from seamline import Clock, Database, Events

KEPT_DAYS = 90

# Reads the same in SQLite and PostgreSQL.
_ENTER = text(
    "INSERT INTO decisions (order_id, shopper, at_ms, question, seen, inputs, score, reasons, model, rules, rule, "
    "verdict, said_by, comment) VALUES (:order_id, :shopper, :at_ms, :question, :seen, :inputs, :score, :reasons, "
    ":model, :rules, :rule, :verdict, '', '') ON CONFLICT (order_id) DO NOTHING"
)
_FIND = select(decisions).where(decisions.c.order_id == bindparam("order"))


class Basis(NamedTuple):
    """A decision, and what it stood on."""

    decision: Decision
    question: Question
    inputs: Inputs
    seen: int


class Book:
    def __init__(self, db: Database, events: Events, clock: Clock) -> None:
        self._db = db
        self._events = events
        self._clock = clock

    async def of(self, order_id: str) -> Decision:
        """The decision on an order that has one."""
        async with self._db.read() as connection:
            return _decision((await connection.execute(_FIND, {"order": order_id})).mappings().one())

    async def enter(
        self, question: Question, at: datetime, seen: int, inputs: Inputs, score: Score, verdict: Verdict,
        rules: str, rule: str,
    ) -> Decision | None:  # fmt: skip
        """Enter a decision; None if the order has one already."""
        row = {
            "order_id": question.order_id,
            "shopper": question.shopper,
            "at_ms": _ms(at),
            "question": _json(question),
            "seen": seen,
            "inputs": _json(inputs),
            "score": score.probability,
            "reasons": _json(score.reasons),
            "model": score.version,
            "rules": rules,
            "rule": rule,
            "verdict": verdict.value,
        }
        async with self._db.transaction() as connection:
            if not (await connection.execute(_ENTER, row)).rowcount:
                return None
            await self._events.publish(
                Judged(
                    order_id=question.order_id,
                    shopper=question.shopper,
                    card=question.card,
                    country=question.country,
                    cents=int(question.worth.amount * 100),
                    verdict=verdict,
                    at=at,
                )
            )
        return _decision({**row, "approved": None, "said_by": "", "comment": ""})

    async def said(self, order_id: str, *, approved: bool, by: str, comment: str, at: datetime) -> Decision | None:
        """A human has looked at the order."""
        async with self._db.transaction() as connection:
            await connection.execute(
                update(decisions)
                .where(decisions.c.order_id == order_id)
                .values(approved=int(approved), said_by=by[:200], comment=comment[:200], said_ms=_ms(at))
            )
            row = (await connection.execute(_FIND, {"order": order_id})).mappings().first()
        return None if row is None else _decision(row)

    async def some(self, order_ids: tuple[str, ...]) -> tuple[Decision, ...]:
        query = select(decisions).where(decisions.c.order_id.in_(order_ids[:500]))
        async with self._db.read() as connection:
            return tuple(_decision(row) for row in (await connection.execute(query)).mappings())

    async def latest(self, limit: int) -> tuple[Decision, ...]:
        query = select(decisions).order_by(decisions.c.at_ms.desc(), decisions.c.order_id).limit(limit)
        async with self._db.read() as connection:
            return tuple(_decision(row) for row in (await connection.execute(query)).mappings())

    async def since(self, at: datetime) -> list[Basis]:
        recent = select(decisions).where(decisions.c.at_ms >= _ms(at))
        newest = recent.order_by(decisions.c.at_ms.desc()).limit(REPLAYED_MAX)
        async with self._db.read() as connection:
            return [_basis(row) for row in (await connection.execute(newest)).mappings()]

    async def tidy(self) -> None:
        """Forget what nobody may ask about any more."""
        before = self._clock.now() - timedelta(days=KEPT_DAYS)
        async with self._db.transaction() as connection:
            await connection.execute(delete(decisions).where(decisions.c.at_ms < _ms(before)))


def _decision(row: Mapping[Any, Any]) -> Decision:
    question = msgspec.json.decode(row["question"], type=Question)
    return Decision(
        order_id=question.order_id,
        shopper=question.shopper,
        worth=question.worth,
        at=datetime.fromtimestamp(row["at_ms"] / 1000, UTC),
        verdict=Verdict(row["verdict"]),
        score=row["score"],
        reasons=msgspec.json.decode(row["reasons"], type=tuple[Reason, ...]),
        model=row["model"],
        rules=row["rules"],
        rule=row["rule"],
        approved=None if row["approved"] is None else bool(row["approved"]),
        by=row["said_by"],
        comment=row["comment"],
    )


def _basis(row: Mapping[Any, Any]) -> Basis:
    return Basis(
        _decision(row),
        msgspec.json.decode(row["question"], type=Question),
        msgspec.json.decode(row["inputs"], type=Inputs),
        row["seen"],
    )


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
