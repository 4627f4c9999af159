"""Runs a checkout, or its recovery, in a process of its own that ends itself by SIGKILL at a chosen point.

Standard input has one job a line, as JSON; each runs in a fork of this process, which has imported everything, and is
answered by a line with how it ended. The points are the writes of the journal and the calls of other modules, each
once before and once after.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table, Text, insert
from tests.sagas.rig import Host, settings

from seamline.kernel.owner import process_owner
from seamline.kernel.store import Database
from seamline.module import Contract, Fault, Module, current
from seamline.sagas import Saga
from seamline.sagas.journal import Journal
from seamline.sagas.journal.store import Store

OTHER_MODULES = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT);
CREATE TABLE IF NOT EXISTS stock (id INTEGER PRIMARY KEY, left INTEGER);
CREATE TABLE IF NOT EXISTS money (id INTEGER PRIMARY KEY, order_id TEXT, cents INTEGER);
INSERT OR IGNORE INTO stock VALUES (1, 10);
"""

tables = MetaData()
parcels = Table("parcels", tables, Column("n", Integer, primary_key=True), Column("order_id", Text))
shop = Module("shop", tables=tables)


class NotShipped(Fault):
    """The parcel did not leave."""


class Others(Contract):
    async def reserve(self, order_id: str) -> None: ...
    async def release(self, order_id: str) -> None: ...
    async def charge(self, order_id: str, cents: int) -> int: ...
    async def refund(self, charge: int) -> None: ...


class Points:
    """Counts, and kills this process when its time has come."""

    def __init__(self, at: int) -> None:
        self.passed = 0
        self._at = at

    def pass_by(self) -> None:
        self.passed += 1
        if self.passed == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


class OtherModules(Others):
    """Stock and money in a database of their own; a key is honoured in the transaction of its effect."""

    def __init__(self, path: str, points: Points, *, honour: bool) -> None:
        self._path = path
        self._points = points
        self._honour = honour

    def _once(self, effect: Callable[[sqlite3.Connection], Any]) -> Any:
        context = current()
        key = context.key_for_calls if context is not None else None
        assert key, "a call without a key"
        self._points.pass_by()
        with sqlite3.connect(self._path) as connection:
            row = connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
            if row is None or not self._honour:
                answer = effect(connection)
                connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(answer)))
            else:
                answer = json.loads(row[0])
        self._points.pass_by()
        return answer

    async def reserve(self, order_id: str) -> None:
        self._once(lambda c: c.execute("UPDATE stock SET left = left - 1") and None)

    async def release(self, order_id: str) -> None:
        self._once(lambda c: c.execute("UPDATE stock SET left = left + 1") and None)

    async def charge(self, order_id: str, cents: int) -> int:
        add = "INSERT INTO money (order_id, cents) VALUES (?, ?)"
        return self._once(lambda c: c.execute(add, (order_id, cents)).lastrowid)

    async def refund(self, charge: int) -> None:
        add = "INSERT INTO money (order_id, cents) SELECT order_id, -cents FROM money WHERE id = ?"
        self._once(lambda c: c.execute(add, (charge,)) and None)


@shop.saga
async def checkout(s: Saga, ships: bool, others: Others, db: Database) -> str:
    async def pack() -> None:
        async with db.transaction() as tx:
            await tx.execute(insert(parcels).values(order_id=s.key))

    async def unpack() -> None:
        async with db.transaction() as tx:
            await tx.execute(parcels.delete().where(parcels.c.order_id == s.key))

    async def leave() -> None:
        if not ships:
            raise NotShipped

    charge, _ = await asyncio.gather(
        s.step(others.charge, s.key, 500, undo=others.refund),
        s.step(others.reserve, s.key, undo=others.release),
    )
    await s.step(pack, undo=unpack)
    await s.step(leave)
    return f"charge {charge}"


class KillingStore(Store):
    """A journal's store that passes a point before and after each write."""

    def __init__(self, store: Store, points: Points) -> None:
        self.database = store.database
        self._store = store
        self._points = points

    async def prepare(self) -> None:
        await self._store.prepare()

    async def run(self, statements: Sequence[Any]) -> Any:
        return await self._store.run(statements)

    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        return await self._store.read(sql, parameters)

    async def peek(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        return await self._store.peek(sql, parameters)

    def sql(self, text: str) -> str:
        return self._store.sql(text)

    async def write(self, writes: Sequence[Any]) -> Any:
        return await self._between(self._store.write(writes))

    async def write_with(self, connection: Any, write: Any) -> Any:
        return await self._between(self._store.write_with(connection, write))

    async def _between(self, work: Awaitable[Any]) -> Any:
        self._points.pass_by()
        found = await work
        self._points.pass_by()
        return found


async def job(url: str, others: str, key: str, ships: bool, honour: bool, at: int) -> str:
    """Run a checkout to its end, unless killed: its outcome, and how many points it passed."""
    points = Points(at)
    with sqlite3.connect(others) as connection:
        connection.executescript(OTHER_MODULES)
    async with Database(url, "shop", tables) as db:
        await db.ensure(tables)
        host = Host(
            shop, db, settings=settings(lease_s=60), owner=process_owner("sweep"),
            stubs={Others: OtherModules(others, points, honour=honour)},
        )  # fmt: skip
        host.engine.journal = Journal(KillingStore(host.engine.journal.store, points))
        await host.start()
        try:
            outcome = await host.sagas.run(checkout, ships, key=key)
        except NotShipped:
            outcome = "not shipped"
        await host.stop()
    return f"{outcome}, {points.passed} points"


def main() -> None:
    for line in sys.stdin:
        given = json.loads(line)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            said = asyncio.run(job(**given))
            os.write(writer, said.encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            said = pipe.read()
        _, status = os.waitpid(pid, 0)
        print(  # noqa: T201  # the answer
            json.dumps({"killed": os.WIFSIGNALED(status), "status": status, "said": said}), flush=True
        )


if __name__ == "__main__":
    main()
