"""The inside of till."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import insert, select

from kiosk.stock import OutOfStock, Stock
from kiosk.till import Sale, SoldOut, Till
from kiosk.till.tables import metadata, sales
from seamline import Clock, Database, Module

module = Module("till", provides=Till, tables=metadata)


@module.service
class TillService(Till):
    def __init__(self, db: Database, clock: Clock, stock: Stock) -> None:
        self._db = db
        self._clock = clock
        self._stock = stock

    async def sell(self, sku: str) -> Sale:
        try:
            left = await self._stock.take(sku)
        except OutOfStock as fault:
            raise SoldOut(sku=fault.sku) from None
        async with self._db.transaction() as connection:
            await connection.execute(insert(sales).values(sku=sku))
        return Sale(sku, left, self._clock.now())

    async def sales(self) -> list[str]:
        async with self._db.read() as connection:
            return [row.sku for row in await connection.execute(select(sales.c.sku).order_by(sales.c.id))]

    async def wait(self, seconds: float) -> datetime:
        await self._clock.sleep(seconds)
        return self._clock.now()

    async def peek(self) -> str:
        return await self._stock.fail("peeked")  # which the policy does not permit

    async def oversell(self, sku: str) -> int:
        return await self._stock.take(sku, 1000)  # whose fault is not one of this contract

    async def hurry(self) -> None:
        await self._stock.hang()
