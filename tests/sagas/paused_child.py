"""A process with a saga whose second step waits for a file; the test pauses it there. Arguments: url, folder."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sqlalchemy import Column, Integer, MetaData, Table, Text, insert
from tests.sagas.rig import Host, settings

from seamline.kernel.owner import process_owner
from seamline.kernel.store import Database
from seamline.module import Module
from seamline.sagas import Saga

tables = MetaData()
rows = Table("rows", tables, Column("n", Integer, primary_key=True), Column("who", Text))
shop = Module("shop", tables=tables)
LEASE_S = 0.6
"""Of the other process. This one says seldom that it is there: a process that is paused while it holds the file holds
up everybody, and is not what the test is about."""


@shop.saga
async def held_up(s: Saga, folder: str, db: Database) -> str:
    async def write() -> None:
        path = Path(folder)
        (path / "waiting").touch()
        while not (path / "go").exists():  # noqa: ASYNC110  # the test is another process
            await asyncio.sleep(0.005)
        async with db.transaction() as tx:
            await tx.execute(insert(rows).values(who="a worker"))

    await s.step(write, name="write")
    return "done"


async def main(url: str, folder: str) -> None:
    async with Database(url, "shop", tables) as db:
        await db.ensure(tables)
        host = await Host(shop, db, settings=settings(lease_s=60), owner=process_owner("paused")).start()
        handle = await host.sagas.start(held_up, folder, key="one")
        course = host.engine.running[handle.id]
        said = await handle.result(60)
        (Path(folder) / "child").write_text(f"{said}, lost: {course.lost}", encoding="ascii")
        await host.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
