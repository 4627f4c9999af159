"""The inside of payments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from sqlalchemy import Column, MetaData, String, Table, delete, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from errand.payments import Asked, Payments
from seamline import Database, Module, Principal
from seamline.kernel.codec import codec

metadata = MetaData()
ledger = Table("ledger", metadata, Column("note", String(80), primary_key=True), Column("asked", String(2000)))
module = Module("payments", provides=Payments, tables=metadata)
_codec = codec(Asked)


def asked_of(who: Principal) -> Asked:
    user = who.user
    return Asked(
        user=user.id if user else "",
        roles=sorted(user.roles) if user else [],
        session=user.session if user else "",
        scopes=sorted(user.scopes) if user and user.scopes is not None else None,
        age=int(user.attributes.get("age", 0)) if user else 0,
        module=who.module,
        agent=who.agent,
        chain=list(who.chain),
    )


@module.service
class PaymentService(Payments):
    def __init__(self, db: Database, who: Principal) -> None:
        self._db = db
        self._who = who

    async def who(self) -> Asked:
        return asked_of(self._who)

    async def pay(self, note: str) -> str:
        asked = asked_of(self._who)
        async with self._db.transaction() as connection:
            row = upsert(ledger).values(note=note, asked=_codec.encode(asked).decode())
            await connection.execute(row.on_conflict_do_nothing())
        return note

    async def undo(self, note: str) -> None:
        asked = _codec.encode(asked_of(self._who)).decode()
        async with self._db.transaction() as connection:
            await connection.execute(delete(ledger).where(ledger.c.note == note))
            await connection.execute(insert(ledger).values(note=f"undone {note}", asked=asked))

    async def paid(self) -> dict[str, Asked]:
        async with self._db.read() as connection:
            rows = await connection.execute(select(ledger))
            return {row.note: _codec.decode(row.asked.encode()) for row in rows}

    async def watch(self) -> AsyncIterator[Asked]:
        yield asked_of(self._who)
        await asyncio.Event().wait()
