"""The inside of orders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from errand.orders import Orders, Placed
from errand.payments import Asked, Payments
from seamline import Events, Module, Principal, Saga, Sagas

module = Module("orders", provides=Orders)


@module.saga
async def paying(s: Saga, note: str, payments: Payments) -> None:
    await s.step(payments.pay, f"{note} first", undo=payments.undo)
    await s.wait_signal("go on", str)
    await s.step(payments.pay, f"{note} then", undo=payments.undo)


@module.service
class OrderService(Orders):
    def __init__(self, payments: Payments, events: Events, sagas: Sagas, who: Principal) -> None:
        self._payments = payments
        self._events = events
        self._sagas = sagas
        self._who = who

    async def call(self) -> Asked:
        return await self._payments.who()

    async def myself(self) -> Asked:
        user = self._who.require_user()
        return Asked(user.id, [], user.session, None, 0, self._who.module, self._who.agent, list(self._who.chain))

    async def alone(self) -> Asked:
        return await asyncio.get_running_loop().create_task(self._payments.who())

    async def wait(self) -> None:
        await asyncio.Event().wait()

    async def watch(self) -> AsyncIterator[Asked]:
        async for item in self._payments.watch():
            yield item

    async def publish(self, note: str) -> None:
        await self._events.publish(Placed(note=note))

    async def begin(self, note: str) -> str:
        return (await self._sagas.start(paying, note)).id

    async def go_on(self, saga: str) -> None:
        await self._sagas.handle(saga).signal("go on", "now")
