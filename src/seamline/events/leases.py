"""Who works on which partition: leases in the database of those who work, shared fairly, with fencing.

A member shows that it lives by counting up a number. Others watch that number by their own monotonic clock, so no two
clocks have to agree and none may jump; a process of this machine that has ended is seen at once. Whoever takes a
partition raises its epoch, and an effect is committed only with the epoch its partition still has (see ``fences``):
a process that was paused may still believe in its lease, but what it commits late is refused.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sqlite3
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import Table, delete, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.fences import NOBODY, lease_of, leases, members, metadata, shares
from seamline.events.shares import Lease, Plan, Share, make_plan
from seamline.kernel.clock import Clock, in_step
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.owner import is_gone
from seamline.kernel.store import Database, raw_in

LOOK_S: Final = 0.25
"""How often to look for processes that have ended and partitions that became free."""

_BEAT: Final = "UPDATE seamline_lease_members SET beat = ? WHERE member = ?"
_BEATS: Final = "SELECT member, beat FROM seamline_lease_members"
_SHARES: Final = "SELECT name, member FROM seamline_lease_shares ORDER BY name, member"
_LEASES: Final = "SELECT lease, epoch, member FROM seamline_leases ORDER BY lease"
_FREE: Final = "SELECT name, partition FROM seamline_leases WHERE member = ?"

_log = logging.getLogger(__name__)


class Picture(NamedTuple):
    """All that a beat would look at, but for the beats."""

    members: list[str]
    shares: list[tuple[str, str]]
    leases: list[tuple[str, int, str]]


@dataclass(slots=True)
class Sighting:
    """When a member was first seen with the number it shows."""

    beat: int
    since_s: float


class Leases:
    """The leases of one module's database, and this process's part in them.

    Args:
        owner: as :func:`~seamline.kernel.owner.process_owner` gives it.
        ttl_s: a member that has shown no sign of life for so long has lost what it held.
    """

    def __init__(self, database: Database, owner: str, clock: Clock, ttl_s: float = 3.0) -> None:
        self._database = database
        self._sqlite = database.path is not None
        self._member = f"{uuid.uuid4().hex[:8]} {owner}"
        self._clock = clock
        self._ttl_s = ttl_s
        self._shares: dict[str, Share] = {}
        self._beat = 0
        self._alive_at_s: float | None = None
        self._sightings: dict[str, Sighting] = {}
        self._lock = asyncio.Lock()
        self._tasks = TaskOwner("leases")
        self._keeping = False
        self._calm: Picture | None = None
        """What there was when nothing was left to be done. With SQLite only."""

    def alive(self) -> bool:
        """Whether others still have to believe that we live."""
        return self._alive_at_s is not None and self._clock.monotonic() - self._alive_at_s < self._ttl_s

    async def join(self, name: str, partitions: int) -> Share:
        """Take part in ``name``, whose partitions are shared by all members that do."""
        assert name not in self._shares, f"{name!r} is joined already"
        if not self._keeping:
            await self._database.ensure(metadata)
        share = self._shares[name] = Share(self, name, partitions)
        self._calm = None
        try:
            async with self._lock, self._database.transaction() as tx:
                await self._enrol(tx)
                rows = [
                    {"lease": lease_of(name, each), "name": name, "partition": each, "epoch": 0, "member": NOBODY}
                    for each in range(partitions)
                ]
                await _insert_absent(tx, leases, rows)
            await self.beat()
        except BaseException:
            del self._shares[name]
            raise
        if not self._keeping:
            self._keeping = True
            # In a context of its own: the task outlives the call or unit of work that happened to join first.
            contextvars.Context().run(self._tasks.spawn, self._keep(), name="leases")
        return share

    async def leave(self, share: Share) -> None:
        if self._shares.pop(share.name, None) is None:
            return
        self._calm = None
        share.epochs = {}
        share.changed.set()
        async with self._lock, self._database.transaction() as tx:
            mine = (leases.c.name == share.name) & (leases.c.member == self._member)
            await tx.execute(update(leases).where(mine).values(member=NOBODY))
            await tx.execute(delete(shares).where(shares.c.name == share.name, shares.c.member == self._member))

    async def close(self) -> None:
        """Give everything back."""
        await self._tasks.stop()
        for share in list(self._shares.values()):
            await self.leave(share)
        if self._keeping:
            self._keeping = False
            async with self._database.transaction() as tx:
                await tx.execute(delete(members).where(members.c.member == self._member))

    async def _keep(self) -> None:
        troubled = False
        next_s = self._clock.monotonic() + self._ttl_s / 3
        while True:
            await in_step(min(LOOK_S, self._ttl_s / 6))
            try:
                if self._clock.monotonic() >= next_s or self._somebody_ended() or await self._something_free():
                    next_s = self._clock.monotonic() + self._ttl_s / 3
                    await self.beat()
                troubled = False
            except Exception as error:
                if not troubled:
                    _log.warning("leases of %s cannot be kept, trying again: %s", self._database.module, error)
                troubled = True

    def _somebody_ended(self) -> bool:
        return any(is_gone(member) for member in self._sightings if member != self._member)

    async def _something_free(self) -> bool:
        if all(len(share.epochs) == share.partitions for share in self._shares.values()):
            return False
        rows: Sequence[Any]
        if self._sqlite:
            rows = await self._database.raw_read(lambda sqlite: sqlite.execute(_FREE, (NOBODY,)).fetchall())
        else:
            async with self._database.read() as connection:
                query = select(leases.c.name, leases.c.partition).where(leases.c.member == NOBODY)
                rows = (await connection.execute(query)).all()
        for name, partition in rows:
            share = self._shares.get(name)
            if share is not None and partition < share.partitions and partition not in share.epochs:
                return True
        return False

    async def beat(self) -> None:
        """Show that we live, and see to it that each member has its part. Goes on by itself; tests call it."""
        if not self._shares:
            return
        async with self._lock:
            begun_s = self._clock.monotonic()
            self._beat += 1
            if self._calm is not None and self.alive() and await self._database.raw(self._beat_calmly):
                self._alive_at_s = begun_s
                return
            self._calm = None
            async with self._database.transaction() as tx:
                if await _put_beat(tx, self._member, self._beat):
                    await self._enrol(tx)
                present = await self._present(tx)
                struck_off = [name for name in self._shares if self._member not in present.get(name, ())]
                if struck_off:  # others took us for dead
                    await _insert_absent(tx, shares, [{"name": name, "member": self._member} for name in struck_off])
                rows = await self._rows(tx)
                plans = [self._plan(share, rows.get(share.name, []), present) for share in self._shares.values()]
                for plan in plans:
                    await self._carry_out(tx, plan)
                calm = None
                if self._sqlite and not any(p.give or p.take or p.leaving for p in plans):
                    calm = (await raw_in(tx, _look))[0]
            self._calm = calm
            was_alive, self._alive_at_s = self.alive(), begun_s
            for plan in plans:
                plan.settle()
                if not was_alive:
                    plan.share.changed.set()

    def _beat_calmly(self, sqlite: sqlite3.Connection) -> bool:
        """Show that we live, if nothing else is to be done: what nearly every beat is, at a tenth of the price."""
        sqlite.execute(_BEAT, (self._beat, self._member))
        picture, beats = _look(sqlite)
        if picture != self._calm:
            return False
        now_s = self._clock.monotonic()
        for member, beat in beats:
            known = self._sightings.get(member)
            if known is None or known.beat != beat:
                self._sightings[member] = Sighting(beat, now_s)
            elif member != self._member and (now_s - known.since_s >= self._ttl_s or is_gone(member)):
                return False
        return True

    async def _enrol(self, tx: AsyncConnection) -> None:
        await _insert_absent(tx, shares, [{"name": name, "member": self._member} for name in self._shares])

    async def _present(self, tx: AsyncConnection) -> dict[str, set[str]]:
        """Who lives, by what they take part in. Those that do not are struck off."""
        now_s = self._clock.monotonic()
        paused = self._alive_at_s is None or not self.alive()  # then we cannot tell whom we should have heard of
        seen: dict[str, Sighting] = {}
        for member, beat in (await tx.execute(select(members.c.member, members.c.beat))).all():
            known = self._sightings.get(member)
            seen[member] = known if known and known.beat == beat and not paused else Sighting(beat, now_s)
        ended = [
            member
            for member, sighting in seen.items()
            if member != self._member and (now_s - sighting.since_s >= self._ttl_s or is_gone(member))
        ]
        for table in (members, shares) if ended else ():
            locked = select(table.c.member).where(table.c.member.in_(ended)).with_for_update(skip_locked=True)
            found = (await tx.execute(locked)).scalars().all()
            await tx.execute(delete(table).where(table.c.member.in_(found)))
        self._sightings = {member: sighting for member, sighting in seen.items() if member not in ended}
        present: dict[str, set[str]] = {}
        for name, member in (await tx.execute(select(shares.c.name, shares.c.member))).all():
            if member in self._sightings:
                present.setdefault(name, set()).add(member)
        return present

    async def _rows(self, tx: AsyncConnection) -> dict[str, list[Lease]]:
        columns = (leases.c.name, leases.c.partition, leases.c.epoch, leases.c.member)
        rows: dict[str, list[Lease]] = {}
        query = select(*columns).where(leases.c.name.in_(list(self._shares))).order_by(leases.c.partition)
        for name, partition, epoch, member in (await tx.execute(query)).all():
            rows.setdefault(name, []).append(Lease(partition, epoch, member))
        return rows

    def _plan(self, share: Share, rows: Sequence[Lease], present: Mapping[str, set[str]]) -> Plan:
        rows = [row for row in rows if row.partition < share.partitions]
        return make_plan(share, rows, present.get(share.name, set()) | {self._member}, self._member)

    async def _carry_out(self, tx: AsyncConnection, plan: Plan) -> None:
        name = plan.share.name
        if plan.give:
            given = leases.c.lease.in_([lease_of(name, each) for each in plan.give])
            await tx.execute(update(leases).where(given, leases.c.member == self._member).values(member=NOBODY))
        if not plan.take:
            return
        wanted = leases.c.lease.in_([lease_of(name, each.partition) for each in plan.take])
        # Who commits an effect holds its lease's row until then: it stays where it is for now.
        query = select(leases.c.partition, leases.c.epoch).where(wanted).with_for_update(skip_locked=True)
        free = {(partition, epoch) for partition, epoch in (await tx.execute(query)).all()}
        for each in plan.take:
            if (each.partition, each.epoch) in free:
                lease = leases.c.lease == lease_of(name, each.partition)
                await tx.execute(update(leases).where(lease).values(member=self._member, epoch=each.epoch + 1))
                plan.epochs[each.partition] = each.epoch + 1


def _look(sqlite: sqlite3.Connection) -> tuple[Picture, list[tuple[str, int]]]:
    beats = sqlite.execute(_BEATS).fetchall()
    picture = Picture(
        sorted(member for member, _ in beats), sqlite.execute(_SHARES).fetchall(), sqlite.execute(_LEASES).fetchall()
    )
    return picture, beats


async def _insert_absent(tx: AsyncConnection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    make = postgresql_insert if tx.dialect.name == "postgresql" else sqlite_insert
    await tx.execute(make(table).on_conflict_do_nothing(), list(rows))


async def _put_beat(tx: AsyncConnection, member: str, beat: int) -> bool:
    """True if the member was not known, or not any more."""
    mine = members.c.member == member
    if (await tx.execute(update(members).where(mine).values(beat=beat))).rowcount:
        return False
    await tx.execute(insert(members).values(member=member, beat=beat))
    return True
