"""Orders: gives back what it gets, so that what is measured is the way there and back."""

from __future__ import annotations

from benchmarks.order import Order
from seamline import Contract


class Orders(Contract):
    async def place(self, order: Order) -> Order: ...

    async def count(self, number: int) -> int: ...
