"""A module that publishes its events and hears them, in one process, as ``seamline up`` has it in a monolith."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from benchmarks.event import CONTENT
from seamline import Contract, Event, EventContext, Module
from seamline.events.events import Events
from seamline.events.runtime import EventsRuntime
from seamline.kernel.clock import Clock, SystemClock
from seamline.kernel.lifetime import spare_the_collector
from seamline.kernel.owner import process_owner
from seamline.kernel.settings import EventsSettings
from seamline.kernel.signal.trace import Tracer
from seamline.kernel.store import Database, sqlite_url
from seamline.module.wiring import Wiring


class OrderPlaced(Event, key="order_id"):
    order_id: str
    shopper: str
    currency: str
    total: str
    lines: list[str]
    placed_at: str
    note: str


EVENT = OrderPlaced(**CONTENT)


class OwnLog:
    """The call port of a process that hosts the only module: its log, without a call."""

    runtime: EventsRuntime

    def stub(self, contract: type[Contract], caller: str) -> Any:  # noqa: ARG002  # the port's signature
        return self.runtime.log_service(caller)


async def open_events(folder: Path, heard: dict[str, asyncio.Future[None]] | None = None) -> Events:
    """The module at work, with a handler that ends the wait for an event's id where ``heard`` is given."""
    module = Module("orders")
    if heard is not None:

        @module.on(OrderPlaced, start="latest", concurrency=64)
        async def hear(_: OrderPlaced, context: EventContext) -> None:
            heard.setdefault(context.id, asyncio.get_running_loop().create_future()).set_result(None)

    database = Database(sqlite_url(folder, "orders"), "orders")
    await database.start()
    clock, port = SystemClock(), OwnLog()
    port.runtime = runtime = EventsRuntime(
        "bench", EventsSettings(), clock, port, Tracer(0.0), {OrderPlaced: "orders"}, lambda _: None,
        process_owner("bench"),
    )  # fmt: skip
    runtime.add(module, database, Wiring(module, {}, {Clock: lambda _: clock, EventContext: lambda _: None}))
    await runtime.open()
    await runtime.start()
    spare_the_collector()  # as every worker does
    return runtime.events_of("orders")
