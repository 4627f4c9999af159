"""Answers that turn out right or wrong later: kept in the module's own database until somebody knows."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    delete,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from seamline.kernel.clock import Clock, now_ms
from seamline.kernel.store import Database
from seamline.models.watch.quality import Quality, quality
from seamline.models.watch.watcher import watchers

CASES_MAX: Final = 50_000
"""Of one version, the newest whose outcome is known."""

metadata = MetaData()
outcomes = Table(
    "seamline_model_outcomes",
    metadata,
    Column("model", String(128), nullable=False),
    Column("id", String(128), nullable=False),  # of the case, in the application's words
    Column("version", String(64), nullable=False),  # empty while only the label is known
    Column("score", Double, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("came", SmallInteger),  # null until it is known
    Column("known_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("model", "id"),
    Index("seamline_model_outcomes_known", "model", "known_ms"),
)


class Labels:
    """Scores of one model, and what came of each case. Label and score may come in any order, from any process.

    Args:
        database: the module's own.
        keep_s: a case is forgotten so long after it was last heard of.
    """

    def __init__(self, database: Database, model: str, clock: Clock, *, keep_s: float = 90 * 86_400.0) -> None:
        self._database = database
        self._model = model
        self._clock = clock
        self._keep_ms = round(keep_s * 1000)
        self._insert = sqlite.insert if database.path is not None else postgresql.insert

    async def prepare(self) -> None:
        """Make the table where it is absent."""
        await self._database.ensure(metadata)

    async def predicted(self, case: str, version: str, score: float) -> None:
        """The model gave a case a score. Said again of the same case, the first stands."""
        at_ms = now_ms(self._clock)
        row = {"version": version, "score": score, "at_ms": at_ms}
        new = self._insert(outcomes).values(model=self._model, id=case, came=None, known_ms=at_ms, **row)
        mine = outcomes.c.version == ""
        async with self._database.transaction() as connection:
            await connection.execute(new.on_conflict_do_update(index_elements=["model", "id"], set_=row, where=mine))

    async def labelled(self, case: str, *, came: bool) -> None:
        """It is known now whether the case was what the model looks for. The last word stands."""
        at_ms = now_ms(self._clock)
        row = {"came": int(came), "known_ms": at_ms}
        new = self._insert(outcomes).values(model=self._model, id=case, version="", score=0.0, at_ms=at_ms, **row)
        async with self._database.transaction() as connection:
            await connection.execute(new.on_conflict_do_update(index_elements=["model", "id"], set_=row))

    async def quality(self, since: datetime, *, threshold: float = 0.5) -> dict[str, Quality]:
        """By version, of the cases whose outcome became known since then."""
        known = (
            select(outcomes.c.version, outcomes.c.score, outcomes.c.came)
            .where(
                outcomes.c.model == self._model,
                outcomes.c.came.is_not(None),
                outcomes.c.version != "",
                outcomes.c.known_ms >= round(since.timestamp() * 1000),
            )
            .order_by(outcomes.c.known_ms.desc())
            .limit(CASES_MAX)
        )
        cases: dict[str, list[tuple[float, bool]]] = {}
        async with self._database.read() as connection:
            for row in await connection.execute(known):
                cases.setdefault(row.version, []).append((row.score, bool(row.came)))
        return {version: quality(found, threshold) for version, found in cases.items()}

    async def tell(self, since: datetime) -> None:
        """Tell the quality of each version as a score of its watchers here, once there is enough to say anything."""
        found = await self.quality(since)
        for watcher in watchers(self._model):
            of = found.get(watcher.version)
            if of is not None and of.auc is not None and of.auc_error > 0:
                watcher.measured("auc", of.auc, of.auc_error)

    async def waiting(self) -> int:
        """How many cases nobody knows the outcome of."""
        open_ = select(func.count()).where(outcomes.c.model == self._model, outcomes.c.came.is_(None))
        async with self._database.read() as connection:
            return await connection.scalar(open_) or 0

    async def forget(self, case: str | None = None) -> int:
        """Forget one case, or all that are old; how many went."""
        old = outcomes.c.known_ms < now_ms(self._clock) - self._keep_ms
        which = old if case is None else outcomes.c.id == case
        async with self._database.transaction() as connection:
            gone = await connection.execute(delete(outcomes).where(outcomes.c.model == self._model, which))
        return gone.rowcount
