"""The inside of stock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, cast

from kiosk.stock import Basket, OutOfStock, Stock
from seamline import Fault, Module, current

module = Module("stock", provides=Stock)
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def shelf(scope: MutableMapping[str, Any], receive: object, send: Send) -> None:
    """A face that the policy shows to nobody."""
    if scope["type"] != "http":
        message = "only HTTP"
        raise NotImplementedError(message)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"the shelf"})


module.mount(shelf, at="/shelf")


class Foreign(Fault):
    """A fault that no contract declares."""

    why: str


@module.service
class StockService(Stock):
    def __init__(self) -> None:
        self._left = {"mug": 5, "pen": 100}
        self._cancelled = 0
        self._closed = 0

    async def take(self, sku: str, count: int = 1) -> int:
        left = self._left.get(sku, 0)
        if left < count:
            raise OutOfStock(sku=sku, left=left)
        self._left[sku] = left - count
        return left - count

    async def count(self, sku: str) -> int:
        return self._left.get(sku, 0)

    async def grow(self, basket: Basket) -> Basket:
        basket.lines.append("grown")
        return basket

    async def fail(self, how: str) -> str:
        if how == "fault":
            raise OutOfStock(sku="mug", left=2)
        if how == "undeclared":
            secret = "the password is hunter2"
            raise RuntimeError(secret)
        if how == "foreign":
            raise Foreign(why="not in the contract")
        if how == "cancelled":
            raise asyncio.CancelledError
        return cast("str", 7) if how == "not a str" else how

    async def dawdle(self) -> str:
        await asyncio.sleep(30)
        return "at last"

    async def hang(self) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self._cancelled += 1
            raise

    async def cancelled(self) -> int:
        return self._cancelled

    async def streams_closed(self) -> int:
        return self._closed

    async def who(self) -> str:
        call = current()
        return f"{call.caller} asks {call.module}" if call else "nobody"

    async def countdown(self, start: int, fault_at: int = -1) -> AsyncIterator[int]:
        try:
            for number in range(start, 0, -1):
                if number == fault_at:
                    raise OutOfStock(sku="numbers", left=number)
                yield number
        finally:
            self._closed += 1

    async def total(self, items: AsyncIterator[int]) -> int:
        return sum([item async for item in items])

    async def doubled(self, items: AsyncIterator[int]) -> AsyncIterator[int]:
        async for item in items:
            yield item * 2
