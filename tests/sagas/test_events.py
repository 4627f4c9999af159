"""Sagas and events: publishing with the journal, and waiting for what another publishes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.sagas.rig import settings, until

from seamline.events.runtime import EventsRuntime
from seamline.kernel.clock import SystemClock
from seamline.kernel.owner import process_owner
from seamline.kernel.settings import EventsSettings
from seamline.kernel.signal.trace import Tracer
from seamline.kernel.store import Database
from seamline.module import Contract, Event, Module
from seamline.module.wiring import Wiring
from seamline.sagas import Saga, Sagas, WaitExpired
from seamline.sagas.hearing import awaited_events
from seamline.sagas.runtime import SagasRuntime


class Paid(Event, key="order"):
    order: str
    cents: int


class Shipped(Event, key="order"):
    order: str


shop = Module("shop")


@shop.saga
async def await_payment(s: Saga, order: str, patience_s: float | None) -> int:
    paid = await s.wait_event(Paid, order, patience_s)
    return paid.cents


@shop.saga
async def await_late(s: Saga, order: str) -> int:
    await s.wait_signal("begin", type(None))
    first = await s.wait_event(Paid, order)
    second = await s.wait_event(Paid, order)
    return first.cents * 100 + second.cents


@shop.saga
async def pay(s: Saga, order: str, cents: int) -> str:
    return await s.publish(Paid(order=order, cents=cents))


class Port:
    """Reads the module's own log, as the mesh would."""

    def __init__(self) -> None:
        self.events: EventsRuntime | None = None

    def stub(self, contract: type[Contract], caller: str) -> Any:
        assert self.events is not None
        return self.events.log_service("shop")


@asynccontextmanager
async def hosted(db: Database, idle_s: float = 0.05) -> AsyncGenerator[tuple[Sagas, EventsRuntime, SagasRuntime]]:
    clock = SystemClock()
    port = Port()
    owners: dict[type[Event], str] = {Paid: "shop", Shipped: "shop"}
    events = EventsRuntime(
        "test", EventsSettings(), clock, port, Tracer(0.0), owners, lambda _: None, process_owner("test")
    )
    port.events = events
    sagas = SagasRuntime("test", settings(idle_s=idle_s), clock, events=events)
    wiring = Wiring(shop, {}, {Database: lambda _: db})
    events.add(shop, db, wiring)
    sagas.add(shop, db, wiring)
    await events.open()
    await sagas.start()
    await events.start()
    try:
        yield sagas.sagas_of(shop), events, sagas
    finally:
        await sagas.drain(5)
        await sagas.stop()
        await events.drain(5)
        await events.stop()


def test_what_a_saga_waits_for_is_read_from_its_code():
    """So that its module hears of it from the start."""
    assert awaited_events(await_payment) == {Paid}
    assert awaited_events(pay) == set()


@pytest.mark.parametrize("idle_s", [0.0, 60.0])
async def test_an_event_reaches_the_saga_that_waits_for_its_key(db: Database, idle_s: float):
    """In memory and out of it; another key does not."""
    async with hosted(db, idle_s) as (sagas, events, runtime):
        handle = await sagas.start(await_payment, "o1", None)
        await until(lambda: not runtime.engine("shop").running or idle_s)
        await events.events_of("shop").publish(Paid(order="o2", cents=1))
        await events.events_of("shop").publish(Paid(order="o1", cents=7))
        assert await handle.result(20) == 7


async def test_an_event_that_came_before_the_wait_counts(db: Database):
    """Each once, in their order; none from before the saga began."""
    async with hosted(db) as (sagas, events, runtime):
        publish = events.events_of("shop").publish
        await publish(Paid(order="o1", cents=9))
        store = runtime.engine("shop").journal.store
        await until(lambda: store.read("SELECT id FROM seamline_saga_events"))
        handle = await sagas.start(await_late, "o1")
        for cents in (1, 2):
            await publish(Paid(order="o1", cents=cents))

        async def all_heard() -> bool:
            return len(await store.read("SELECT id FROM seamline_saga_events")) == 3

        await until(all_heard)
        await handle.signal("begin")
        assert await handle.result(20) == 102


async def test_a_saga_publishes_with_its_journal(db: Database):
    """One saga's event wakes another."""
    async with hosted(db) as (sagas, _, runtime):
        waiting = await sagas.start(await_payment, "o3", None)
        await sagas.run(pay, "o3", 11)
        assert await waiting.result(20) == 11
        found = await runtime.admin("show", {"id": waiting.id})
        assert found["journal"][0]["kind"] == "event"


async def test_an_event_that_does_not_come_expires_the_wait(db: Database):
    """With WaitExpired."""
    async with hosted(db) as (sagas, _, _):
        with pytest.raises(WaitExpired):
            await sagas.run(await_payment, "o9", 0.01)
