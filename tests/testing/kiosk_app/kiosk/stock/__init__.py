"""What is on the shelves, and every way in which a call can end."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

from seamline import Contract, Fault, readonly, timeout


class OutOfStock(Fault):
    """Not enough of it is left."""

    sku: str
    left: int = 0


@dataclasses.dataclass
class Basket:
    lines: list[str]


class Stock(Contract):
    async def take(self, sku: str, count: int = 1) -> int: ...

    @readonly
    async def count(self, sku: str) -> int: ...

    async def grow(self, basket: Basket) -> Basket: ...

    async def fail(self, how: str) -> str: ...

    @timeout(0.3)
    async def dawdle(self) -> str: ...

    async def hang(self) -> None: ...

    async def cancelled(self) -> int: ...

    async def streams_closed(self) -> int: ...

    async def who(self) -> str: ...

    def countdown(self, start: int, fault_at: int = -1) -> AsyncIterator[int]: ...

    async def total(self, items: AsyncIterator[int]) -> int: ...

    def doubled(self, items: AsyncIterator[int]) -> AsyncIterator[int]: ...
