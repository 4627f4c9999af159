"""Streams, and what each has not acknowledged yet: the event log of signals, in the gateway's own database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from seamline.gateway.auth.records import used_once
from seamline.kernel.store import Database

tables = MetaData()
_streams = Table(
    "seamline_signal_streams", tables,
    Column("id", String(64), primary_key=True),
    Column("owner", String(256), nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("claimed_until", BigInteger, nullable=False, default=0),
    Column("next_at", BigInteger, nullable=False, default=0),
    Column("failures", Integer, nullable=False, default=0),
)  # fmt: skip
_events = Table(
    "seamline_signal_events", tables,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("stream", String(64), nullable=False, index=True),
    Column("jti", String(64), nullable=False),
    Column("token", Text, nullable=False),
    Column("made_at", BigInteger, nullable=False),
)  # fmt: skip
_PENDING_MAX = 10_000


class Stream(msgspec.Struct, frozen=True):
    """``endpoint`` is empty for one that is polled."""

    id: str
    owner: str
    audience: str
    endpoint: str = ""
    authorization: str = ""
    requested: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    description: str = ""
    status: str = "enabled"
    reason: str = ""
    failures: int = 0


class Pending(NamedTuple):
    jti: str
    token: str


_decode = msgspec.json.Decoder(Stream).decode
_COLUMNS = (_streams.c.state, _streams.c.failures)


class SignalStore:
    """Times are in seconds since the epoch."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> None:
        """The database is open already: the gateway's records are in it."""
        await self._database.ensure(tables)

    async def put(self, stream: Stream) -> None:
        async with self._database.transaction() as tx:
            await tx.execute(delete(_streams).where(_streams.c.id == stream.id))
            state = msgspec.json.encode(stream)
            await tx.execute(insert(_streams).values(id=stream.id, owner=stream.owner, state=state))

    async def delete(self, stream: str) -> None:
        async with self._database.transaction() as tx:
            await tx.execute(delete(_streams).where(_streams.c.id == stream))
            await tx.execute(delete(_events).where(_events.c.stream == stream))

    async def find(self, stream: str, owner: str) -> Stream | None:
        return next((each for each in await self.streams(owner) if each.id == stream), None)

    async def streams(self, owner: str) -> list[Stream]:
        async with self._database.read() as r:
            return [_decode(row[0]) for row in await r.execute(select(*_COLUMNS).where(_streams.c.owner == owner))]

    async def publish(self, name: str, until: int, made: Callable[[Stream], tuple[str, str] | None], now: int) -> None:
        """Write what ``made`` gives for each stream, once for ``name``, whichever gateways try."""
        try:
            async with self._database.transaction() as tx:
                await tx.execute(used_once(name, until))
                for row in (await tx.execute(select(_streams.c.state))).all():
                    stream = _decode(row[0])
                    event = made(stream)
                    waiting = select(func.count()).select_from(_events).where(_events.c.stream == stream.id)
                    if event is None or (await tx.execute(waiting)).scalar_one() >= _PENDING_MAX:
                        continue
                    jti, token = event
                    await tx.execute(insert(_events).values(stream=stream.id, jti=jti, token=token, made_at=now))
        except IntegrityError:
            return  # another gateway was first

    async def add(self, stream: str, jti: str, token: str, now: int) -> None:
        async with self._database.transaction() as tx:
            await tx.execute(insert(_events).values(stream=stream, jti=jti, token=token, made_at=now))

    async def pending(self, stream: str, most: int) -> Sequence[Pending]:
        """The oldest first."""
        query = select(_events.c.jti, _events.c.token).where(_events.c.stream == stream).order_by(_events.c.number)
        async with self._database.read() as r:
            return [Pending(*row) for row in await r.execute(query.limit(most))]

    async def acknowledge(self, stream: str, done: Sequence[str]) -> None:
        if done:
            async with self._database.transaction() as tx:
                await tx.execute(delete(_events).where(_events.c.stream == stream, _events.c.jti.in_(done)))

    # Push.

    async def due(self, now: int) -> list[Stream]:
        """Streams to push to that have something waiting."""
        waiting = select(_events.c.stream).distinct()
        query = select(*_COLUMNS).where(_streams.c.id.in_(waiting), _streams.c.next_at <= now)
        async with self._database.read() as r:
            rows = (await r.execute(query)).all()
        found = [msgspec.structs.replace(_decode(state), failures=failures) for state, failures in rows]
        return [stream for stream in found if stream.endpoint and stream.status == "enabled"]

    async def claim(self, stream: str, now: int, for_s: int) -> bool:
        """Whether it falls to us to push to it now."""
        async with self._database.transaction() as tx:
            changed = await tx.execute(
                update(_streams)
                .where(_streams.c.id == stream, _streams.c.claimed_until <= now)
                .values(claimed_until=now + for_s)
            )
        return changed.rowcount == 1

    async def failed(self, stream: str, next_at: float) -> None:
        await self._release(stream, next_at=int(next_at), failures=_streams.c.failures + 1)

    async def succeeded(self, stream: str) -> None:
        await self._release(stream, next_at=0, failures=0)

    async def _release(self, stream: str, **values: object) -> None:
        async with self._database.transaction() as tx:
            await tx.execute(update(_streams).where(_streams.c.id == stream).values(claimed_until=0, **values))
