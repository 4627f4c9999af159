"""Where gateways on several machines add up: Redis or PostgreSQL. Both go by the store's own clock."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, Float, MetaData, String, Table, text
from sqlalchemy.exc import SQLAlchemyError

from seamline.gateway.limits.errors import SharedStoreError
from seamline.kernel.errors import SeamlineError
from seamline.kernel.store import Database

_PREFIX = "seamline:limits:"
_SPEND = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local told = {}
for i, key in ipairs(KEYS) do
    local arrival = math.max(tonumber(redis.call('GET', key) or '0'), now) + tonumber(ARGV[i])
    redis.call('SET', key, string.format('%.6f', arrival), 'PX', math.ceil((arrival - now) * 1000))
    told[i] = string.format('%.6f', arrival - now)
end
return told
"""

tables = MetaData()
Table(
    "seamline_limits", tables,
    Column("name", String(1024), primary_key=True),
    Column("arrival", Float(53), nullable=False),
)  # fmt: skip
_NOW = "extract(epoch FROM statement_timestamp())"
_ADD = text(
    "INSERT INTO seamline_limits AS known (name, arrival)"  # noqa: S608  # our own text
    f" SELECT name, {_NOW} + cost FROM unnest(CAST(:names AS text[]), CAST(:costs AS float8[])) AS given(name, cost)"
    f" ON CONFLICT (name) DO UPDATE SET arrival = greatest(known.arrival, {_NOW}) + excluded.arrival - {_NOW}"
    f" RETURNING name, arrival - {_NOW}"
)
_FORGET = text(f"DELETE FROM seamline_limits WHERE arrival < {_NOW}")  # noqa: S608
_FORGET_EVERY = 1000


class RedisStore:
    """``redis://`` or ``rediss://``; each name lives until its time has passed."""

    def __init__(self, url: str) -> None:
        import redis.asyncio as client  # an extra

        make: Any = client.Redis
        self._client = make.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0)

    async def spend(self, costs_s: Mapping[str, float]) -> Mapping[str, float]:
        from redis.exceptions import RedisError

        keys = [_PREFIX + name for name in costs_s]
        try:
            told: list[bytes] = await self._client.eval(_SPEND, len(keys), *keys, *costs_s.values())
        except RedisError as error:
            raise SharedStoreError(f"Redis: {error}", "Is it up?") from error
        return {name: float(ahead) for name, ahead in zip(costs_s, told, strict=True)}

    async def close(self) -> None:
        await self._client.aclose()


class PostgresqlStore:
    """A table in the gateway's own schema."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._opened = False
        self._opening = asyncio.Lock()
        self._count = itertools.count(1)

    async def spend(self, costs_s: Mapping[str, float]) -> Mapping[str, float]:
        names = sorted(costs_s)  # in one order everywhere, so that no two gateways wait for each other
        given = {"names": names, "costs": [costs_s[name] for name in names]}
        try:
            await self._open()
            async with self._database.transaction() as tx:
                rows = (await tx.execute(_ADD, given)).all()
                if next(self._count) % _FORGET_EVERY == 0:
                    await tx.execute(_FORGET)
        except (SQLAlchemyError, SeamlineError) as error:
            raise SharedStoreError(f"PostgreSQL: {error}", "Is it up?") from error
        return {row[0]: float(row[1]) for row in rows}

    async def _open(self) -> None:
        async with self._opening:
            if not self._opened:
                await self._database.start()
                await self._database.ensure(tables)
                self._opened = True

    async def close(self) -> None:
        await self._database.close()
