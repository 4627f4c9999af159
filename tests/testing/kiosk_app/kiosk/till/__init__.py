"""What was sold, and when."""

from __future__ import annotations

import dataclasses
from datetime import datetime

from seamline import Contract, Fault, timeout


class SoldOut(Fault):
    """There is no more of it."""

    sku: str


@dataclasses.dataclass(frozen=True)
class Sale:
    sku: str
    left: int
    at: datetime


class Till(Contract):
    async def sell(self, sku: str) -> Sale: ...

    async def sales(self) -> list[str]: ...

    async def wait(self, seconds: float) -> datetime: ...

    async def peek(self) -> str: ...

    async def oversell(self, sku: str) -> int: ...

    @timeout(0.3)
    async def hurry(self) -> None: ...
