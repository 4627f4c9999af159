"""The inside of mail."""

from __future__ import annotations

from errand.orders import Placed
from errand.payments import Payments
from seamline import Module

module = Module("mail")


@module.on(Placed)
async def send(event: Placed, payments: Payments) -> None:
    await payments.pay(event.note)
