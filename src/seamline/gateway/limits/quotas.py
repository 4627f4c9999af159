"""Requests of a day or month. They are counted in memory and written once a second, so none waits for the disk.

What is written is a sum, so several gateways share a quota; each may let through what it has not yet heard of for
about a second. A process that is killed forgets the last second, in the client's favour.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from sqlalchemy import BigInteger, Column, MetaData, String, Table, delete, select, text
from sqlalchemy.exc import SQLAlchemyError

from seamline.kernel.clock import Clock
from seamline.kernel.errors import SeamlineError
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings import QuotaSettings
from seamline.kernel.store import Database

_log = logging.getLogger("seamline.gateway")

tables = MetaData()
_used = Table(
    "seamline_quotas", tables,
    Column("name", String(1024), primary_key=True),
    Column("used", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False, index=True),
)  # fmt: skip
_ADD = text(
    "INSERT INTO seamline_quotas (name, used, until) VALUES (:name, :count, :until)"
    " ON CONFLICT (name) DO UPDATE SET used = seamline_quotas.used + :count RETURNING used"
)
_WRITE_S = 1.0
_KNOWN_MAX = 50_000
_NAME_CHARACTERS_MAX = 900


class Quota:
    """One rule, ready to be asked."""

    def __init__(self, settings: QuotaSettings) -> None:
        self.settings = settings
        self._below = settings.path.rstrip("/") + "/"
        self._methods = frozenset(settings.methods)

    def concerns(self, path: str, method: str) -> bool:
        return (path.startswith(self._below) or path == self.settings.path) and (
            not self._methods or method in self._methods
        )

    def period(self, now: datetime) -> tuple[str, int]:
        """The name of the day or month in UTC, and when it ends in seconds since the epoch."""
        now = now.astimezone(UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        if self.settings.period == "day":
            return f"{now:%Y-%m-%d}", int(midnight.timestamp()) + 86_400
        first = midnight.replace(day=1)
        following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
        return f"{now:%Y-%m}", int(following.timestamp())


class Quotas:
    """Who has used how much."""

    def __init__(self, settings: Iterable[QuotaSettings], database: Database, clock: Clock) -> None:
        self.all = [Quota(each) for each in settings]
        self._database = database
        self._clock = clock
        self._known: OrderedDict[str, int] = OrderedDict()
        """Name to the sum in the database, as it was last heard."""
        self._new: dict[str, tuple[int, int]] = {}
        """Name to what is not written yet, and when it matters no more."""
        self._owner = TaskOwner("quotas")
        self.down = False

    async def open(self) -> None:
        await self._database.start()
        await self._database.ensure(tables)
        await self._forget()
        self._owner.spawn(self._keep_writing(), name="quotas")

    async def close(self) -> None:
        await self._owner.stop()
        await self.write()
        await self._database.close()

    async def over(self, quota: Quota, name: str) -> float | None:
        """None while there is something left, else the seconds until there is again."""
        now = self._clock.now()
        key, until = self._key(quota, name, now)
        if key not in self._known:
            await self._look_up(key)
        used = self._known.get(key, 0) + self._new.get(key, (0, 0))[0]
        return None if used < quota.settings.requests else until - now.timestamp()

    def use(self, quota: Quota, name: str) -> None:
        """Count one."""
        key, until = self._key(quota, name, self._clock.now())
        self._new[key] = (self._new.get(key, (0, 0))[0] + 1, until)

    def _key(self, quota: Quota, name: str, now: datetime) -> tuple[str, int]:
        period, until = quota.period(now)
        return f"{quota.settings.name} {period} {name}"[:_NAME_CHARACTERS_MAX], until

    async def _look_up(self, key: str) -> None:
        used = 0
        if not self.down:
            try:
                async with self._database.read() as r:
                    used = (await r.execute(select(_used.c.used).where(_used.c.name == key))).scalar_one_or_none() or 0
            except (OSError, SQLAlchemyError, SeamlineError) as error:
                self._failed(error)
                return
        self._know(key, used)

    def _know(self, key: str, used: int) -> None:
        self._known[key] = used
        self._known.move_to_end(key)
        if len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)

    async def write(self) -> None:
        """Add what is new to the sums, and hear what others added; done once a second by itself."""
        if not self._new:
            return
        new, self._new = self._new, {}
        try:
            sums = await self._add(new)
        except (OSError, SQLAlchemyError, SeamlineError) as error:
            self._failed(error)
            for key, (count, until) in new.items():
                self._new[key] = (self._new.get(key, (0, 0))[0] + count, until)
            return
        if self.down:
            _log.warning("the database of quotas is back")
        self.down = False
        for key, used in sums.items():
            self._know(key, used)

    async def _add(self, new: Mapping[str, tuple[int, int]]) -> dict[str, int]:
        sums: dict[str, int] = {}
        async with self._database.transaction() as tx:
            for key in sorted(new):  # in one order everywhere, so that no two gateways wait for each other
                count, until = new[key]
                added = await tx.execute(_ADD, {"name": key, "count": count, "until": until})
                sums[key] = added.scalar_one()
        return sums

    def _failed(self, error: Exception) -> None:
        if not self.down:
            _log.warning(
                "quotas cannot be read or written (%s); what is counted is kept in memory until they can", error
            )
        self.down = True

    async def _forget(self) -> None:
        async with self._database.transaction() as tx:
            await tx.execute(delete(_used).where(_used.c.until < int(self._clock.now().timestamp())))

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(_WRITE_S)
            await self.write()
