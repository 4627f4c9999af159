"""The inside of orders."""

from __future__ import annotations

from benchmarks.order import Order
from benchmarks.ours.orders import Orders
from seamline import Module

module = Module("orders", provides=Orders)


@module.service
class OrderService(Orders):
    async def place(self, order: Order) -> Order:
        return order

    async def count(self, number: int) -> int:
        return number
