"""Sagas of a process that comes up before those that it calls."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.sagas.rig import Host

from seamline.kernel.store import Database, sqlite_url
from seamline.module import Module
from seamline.sagas import Saga

shop = Module("shop")
steps: list[str] = []


async def ship(sku: str) -> str:
    steps.append(sku)
    return sku


@shop.saga
async def buy(s: Saga, sku: str) -> str:
    return await s.step(ship, sku)


async def test_sagas_run_when_what_their_module_calls_can_be_reached(tmp_path: Path):
    """One that is started before is kept, and waits; the engine takes nothing up."""
    there = asyncio.Event()
    steps.clear()

    async def reachable(module: str) -> None:
        assert module == "shop"
        await there.wait()

    async with Database(sqlite_url(tmp_path, "shop"), "shop") as database:
        host = Host(shop, database, reachable=reachable)
        await host.runtime.open()
        await host.start()
        handle = await host.sagas.start(buy, "mug")
        await asyncio.sleep(0.1)
        assert steps == []
        there.set()
        assert await handle.result(10) == "mug"
        await host.stop()


async def test_a_process_that_ends_while_its_sagas_still_wait_leaves_them_to_others(tmp_path: Path):
    """It runs none of them on its way out."""
    steps.clear()

    async def never(module: str) -> None:
        await asyncio.Event().wait()

    async with Database(sqlite_url(tmp_path, "shop"), "shop") as database:
        host = Host(shop, database, reachable=never)
        await host.runtime.open()
        await host.start()
        handle = await host.sagas.start(buy, "lamp")
        await host.stop()
        assert steps == []
        other = await Host(shop, database, owner="elsewhere/2/2").start()
        assert await other.sagas.handle(handle.id).result(10) == "lamp"
        await other.stop()
