"""Consumers whose handlers call other modules: while those are not there, nothing is tried in vain and nothing lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.events.shop import PERMIT_ALL, Process, Sold, shop, until, write
from tests.events.test_embedded import Land

from seamline.events import runtime
from seamline.events.context import EventContext
from seamline.events.tables import dead_letters
from seamline.kernel.clock import ManualClock
from seamline.kernel.settings import MeshSettings
from seamline.kernel.store import Database
from seamline.mesh.balance import Endpoint
from seamline.mesh.mesh import Mesh
from seamline.mesh.policy import Policy
from seamline.module import Contract, Module


class Bank(Contract):
    async def book(self, number: int) -> int: ...


class BankService(Bank):
    async def book(self, number: int) -> int:
        return number + 1000


class Branch:
    """The process that hosts the bank, far from who calls it."""

    def __init__(self, land: Land) -> None:
        contracts = {"Bank": ("bank", ["book"])}
        policy = Policy.from_text(PERMIT_ALL, modules={"bank": {}, "books": {}}, contracts=contracts)
        self._mesh = Mesh("test", policy, MeshSettings(), identity=land.identity("bank"))

    async def open(self) -> Endpoint:
        self._mesh.provide("bank", Bank, BankService())
        return await Process.serve(self._mesh)

    async def close(self) -> None:
        await self._mesh.stop()


def books(attempts: list[int], *, batch: int = 0) -> Module:
    """One attempt is all that an event gets."""
    module = Module("books")
    if batch:

        @module.on(Sold, attempts=1, backoff_s=0.001, batch=batch, batch_wait_s=0.001)
        async def enter_all(events: list[Sold], bank: Bank, db: Database) -> None:
            for event in events:
                await write(db, event.sku, await bank.book(event.number))

    else:

        @module.on(Sold, attempts=1, backoff_s=0.001)
        async def enter(event: Sold, context: EventContext, bank: Bank, db: Database) -> None:
            number = await bank.book(event.number)
            attempts.append(context.attempt)
            await write(db, event.sku, number)

    return module


def caller(folder: Path, land: Land, module: Module, clock: ManualClock | None = None) -> Process:
    return Process(folder, [shop(), module], identity=land.identity("books"), clock=clock, contracts={Bank: "bank"})


async def test_a_consumer_that_starts_long_before_its_callee_begins_when_that_is_there(tmp_path: Path):
    """It takes nothing before, and what waited takes effect at its first attempt."""
    land = Land(tmp_path)
    attempts: list[int] = []
    process = caller(tmp_path, land, books(attempts))
    branch = Branch(land)
    try:
        await process.start()
        await process.events.publish(Sold(sku="mug", number=1))
        await asyncio.sleep(0.3)
        assert not process.joined()
        process.mesh.set_endpoints({"bank": [await branch.open()]})
        await until(lambda: process.rows_are([("mug", 1001)]))
        assert attempts == [1]
    finally:
        await process.stop()
        await branch.close()


async def test_a_callee_that_never_comes_keeps_nobody_from_beginning_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Other handlers of the module may need something else."""
    monkeypatch.setattr(runtime, "CALLEES_WAIT_S", 0.05)
    process = caller(tmp_path, Land(tmp_path), books([]))
    try:
        await process.start()
        await until(process.joined)
    finally:
        await process.stop()


@pytest.mark.parametrize("batch", [0, 5])
async def test_a_callee_that_is_away_costs_an_event_no_attempt(tmp_path: Path, batch: int):
    """However often it is asked in vain: nothing is counted as a failure, nothing put with the dead letters, and the
    event takes effect once the callee is back."""
    land = Land(tmp_path)
    clock = ManualClock()
    attempts: list[int] = []
    process = caller(tmp_path, land, books(attempts, batch=batch), clock)
    process.mesh.override({"Bank": {"wait_for_ready_s": 0.001}})
    branch = Branch(land)
    endpoint = await branch.open()
    try:
        process.mesh.set_endpoints({"bank": [endpoint]})
        await process.start()
        await until(process.joined)
        process.mesh.set_endpoints({})
        for number in range(3):
            await process.events.publish(Sold(sku="mug", number=number))
        (consumer,) = process.runtime.consumers()
        for _ in range(12):
            await until(lambda: consumer.stats()["resting"] > 0)
            await asyncio.sleep(0.01)  # until it sleeps by the clock
            clock.advance(1.0)
            await until(lambda: consumer.stats()["working"] == 0)
        assert consumer.stats()["failed"] == 0
        assert await process.count(dead_letters) == 0
        process.mesh.set_endpoints({"bank": [endpoint]})
        async with asyncio.timeout(20):
            while not await process.rows_are([("mug", 1000), ("mug", 1001), ("mug", 1002)]):
                clock.advance(1.0)
                await asyncio.sleep(0.01)
        assert attempts == ([] if batch else [1, 1, 1])
    finally:
        await process.stop()
        await branch.close()
