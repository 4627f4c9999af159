"""What a commit checks: the leases as they stand in the database, and whether a partition is still ours.

Whoever takes a partition raises its epoch, and an effect is committed only with the epoch its partition still has.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from typing import Any, Final

import msgspec
from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.errors import LostLeaseError
from seamline.events.transport import Fence
from seamline.kernel.store import raw_in

NOBODY: Final = ""

metadata: Final = MetaData()
members: Final = Table(
    "seamline_lease_members",
    metadata,
    Column("member", String, primary_key=True),
    Column("beat", BigInteger, nullable=False),
)
shares: Final = Table(
    "seamline_lease_shares",
    metadata,
    Column("name", String, primary_key=True),
    Column("member", String, primary_key=True),
)
leases: Final = Table(
    "seamline_leases",
    metadata,
    Column("lease", String, primary_key=True),
    Column("name", String, nullable=False, index=True),
    Column("partition", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("member", String, nullable=False),
)

_EPOCHS: Final = "SELECT lease, epoch FROM seamline_leases WHERE lease IN (SELECT value FROM json_each(?))"
_HELD: Final = (
    select(leases.c.lease, leases.c.epoch)
    .where(leases.c.lease.in_(bindparam("wanted", expanding=True)))
    .order_by(leases.c.lease)
    .with_for_update(read=True)
)


def lease_of(name: str, partition: int) -> str:
    return f"{name}/{partition}"


async def check(connection: AsyncConnection, fence: Fence) -> None:
    """In the transaction that commits an effect: is the lease still the one it was made under?

    Until that transaction ends, nobody takes the lease.

    Raises:
        LostLeaseError: another has taken it; the transaction must be rolled back.
    """
    await check_all(connection, (fence,))


async def check_all(connection: AsyncConnection, fences: Collection[Fence]) -> None:
    """As :func:`check`, of several at once."""
    if not fences:
        return
    if connection.dialect.name == "sqlite":
        lost = await raw_in(connection, lambda sqlite: lost_of(sqlite, fences))
    else:
        named = {"wanted": [fence.lease for fence in fences]}
        lost = _differing(fences, (await connection.execute(_HELD, named)).all())
    for fence in lost:
        raise lost_lease(fence)


def lost_of(sqlite: sqlite3.Connection, fences: Collection[Fence]) -> set[Fence]:
    """Those that do not hold any more, seen from within a transaction that writes."""
    if not fences:
        return set()
    names = msgspec.json.encode([fence.lease for fence in fences]).decode()
    return _differing(fences, sqlite.execute(_EPOCHS, (names,)).fetchall())


def _differing(fences: Collection[Fence], rows: Iterable[Any]) -> set[Fence]:
    return set(fences) - {Fence(lease, epoch) for lease, epoch in rows}


def lost_lease(fence: Fence) -> LostLeaseError:
    return LostLeaseError(
        f"{fence.lease!r} was taken by another process since epoch {fence.epoch}, which was ours",
        "Nothing was kept of this attempt; who has the lease now does the work",
    )


async def revoke(connection: AsyncConnection, name: str) -> None:
    """End every lease of ``name`` with this transaction: who holds one takes it anew, and sees that it did."""
    await connection.execute(update(leases).where(leases.c.name == name).values(epoch=leases.c.epoch + 1))
