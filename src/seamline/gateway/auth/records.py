"""What the gateway's processes share: sessions, keys of programs, what was used once, and what has ended.

It is in the gateway's own database, as a module's data is in that of the module. A request looks at none of it: ended
sessions and changed keys are read as they come, a few times a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import Insert

from seamline.kernel.clock import Clock, now_ms
from seamline.kernel.store import Database

tables = MetaData()
_sessions = Table(
    "seamline_auth_sessions", tables,
    Column("id", String(64), primary_key=True),
    Column("user", String(512), nullable=False, index=True),
    Column("state", LargeBinary, nullable=False),
    Column("checked_at", BigInteger, nullable=False),
    Column("claimed_until", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)  # fmt: skip
_keys = Table(
    "seamline_auth_keys", tables,
    Column("id", String(32), primary_key=True),
    Column("state", LargeBinary, nullable=False),
)  # fmt: skip
_used = Table(
    "seamline_auth_used", tables,
    Column("name", String(128), primary_key=True),
    Column("expires_at", BigInteger, nullable=False),
)  # fmt: skip
_changes = Table(
    "seamline_auth_changes", tables,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    Column("id", String(64), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,  # a number that was forgotten must not come again
)  # fmt: skip
_KEY_CHANGE_KEPT_S = 3600


class SessionRecord(NamedTuple):
    state: bytes
    checked_at: int


class Change(NamedTuple):
    """``kind`` is "session" (it has ended) or "key" (read it again); ``expires_at`` is when it matters no more."""

    number: int
    kind: str
    id: str
    expires_at: int


def used_once(name: str, until: int) -> Insert:
    """Notes that ``name`` is used; an IntegrityError says that it was before."""
    return insert(_used).values(name=name, expires_at=until)


class Records:
    """Times are in seconds since the epoch. States are opaque, and sealed by who keeps them where they are secret."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @property
    def database(self) -> Database:
        return self._database

    async def open(self) -> None:
        await self._database.start()
        await self._database.ensure(tables)

    async def close(self) -> None:
        await self._database.close()

    def now(self) -> int:
        return now_ms(self._clock) // 1000

    # What is used once.

    async def use(self, name: str, until: int) -> bool:
        """Whether ``name`` is used for the first time; it is remembered until then."""
        try:
            async with self._database.transaction() as tx:
                await tx.execute(used_once(name, until))
        except IntegrityError:
            return False
        return True

    async def used(self, name: str) -> bool:
        """Whether ``name`` was used, and is remembered."""
        async with self._database.read() as r:
            return (await r.execute(select(_used.c.name).where(_used.c.name == name))).one_or_none() is not None

    # Sessions.

    async def begin(self, session: str, user: str, state: bytes, expires_at: int) -> None:
        async with self._database.transaction() as tx:
            await tx.execute(
                insert(_sessions).values(
                    id=session, user=user, state=state, checked_at=self.now(), claimed_until=0, expires_at=expires_at
                )
            )

    async def find(self, session: str) -> SessionRecord | None:
        async with self._database.read() as r:
            query = select(_sessions.c.state, _sessions.c.checked_at).where(_sessions.c.id == session)
            row = (await r.execute(query)).one_or_none()
        return SessionRecord(row[0], row[1]) if row is not None else None

    async def claim(self, session: str, for_s: int) -> bool:
        """Whether it falls to us to ask the provider about it; to nobody else for so long."""
        now = self.now()
        async with self._database.transaction() as tx:
            changed = await tx.execute(
                update(_sessions)
                .where(_sessions.c.id == session, _sessions.c.claimed_until <= now)
                .values(claimed_until=now + for_s)
            )
        return changed.rowcount == 1

    async def renew(self, session: str, state: bytes) -> None:
        async with self._database.transaction() as tx:
            await tx.execute(
                update(_sessions)
                .where(_sessions.c.id == session)
                .values(state=state, checked_at=self.now(), claimed_until=0)
            )

    async def end(self, session: str, until: int) -> None:
        """Forget the session, and have every gateway refuse its cookie until that has expired by itself."""
        async with self._database.transaction() as tx:
            await tx.execute(delete(_sessions).where(_sessions.c.id == session))
            await tx.execute(insert(_changes).values(kind="session", id=session, expires_at=until))

    # Keys of programs.

    async def put_key(self, key: str, state: bytes) -> None:
        async with self._database.transaction() as tx:
            await tx.execute(delete(_keys).where(_keys.c.id == key))
            await tx.execute(insert(_keys).values(id=key, state=state))
            until = self.now() + _KEY_CHANGE_KEPT_S
            await tx.execute(insert(_changes).values(kind="key", id=key, expires_at=until))

    async def key(self, key: str) -> bytes | None:
        async with self._database.read() as r:
            return (await r.execute(select(_keys.c.state).where(_keys.c.id == key))).scalar_one_or_none()

    async def keys(self) -> dict[str, bytes]:
        async with self._database.read() as r:
            return {row[0]: row[1] for row in await r.execute(select(_keys.c.id, _keys.c.state))}

    # What has changed.

    async def changes(self, after: int) -> Sequence[Change]:
        async with self._database.read() as r:
            rows = await r.execute(select(_changes).where(_changes.c.number > after).order_by(_changes.c.number))
            return [Change(*row) for row in rows]

    async def forget(self) -> None:
        """Drop what matters no more."""
        now = self.now()
        async with self._database.transaction() as tx:
            every: tuple[Any, ...] = (_used, _sessions, _changes)
            for table in every:
                await tx.execute(delete(table).where(table.c.expires_at < now))
