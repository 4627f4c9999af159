"""``python -m ... <port>``: one call is one acknowledged XADD; 64 connections for 64 callers."""

from __future__ import annotations

import sys

from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks.driver import Call, drive
from benchmarks.event import BODY, TOPIC


async def connect() -> Call:
    pool = BlockingConnectionPool(host="127.0.0.1", port=int(sys.argv[1]), max_connections=64)
    client = Redis(connection_pool=pool)

    async def publish() -> None:
        await client.xadd(TOPIC, {"data": BODY}, maxlen=1_000_000, approximate=True)

    return publish


if __name__ == "__main__":
    drive(connect)
