"""Sagas are found by what people know of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.sagas.rig import Host

from seamline.kernel.store import Database, sqlite_url
from seamline.module import Module
from seamline.sagas import Saga

shop = Module("shop")


async def ship(sku: str) -> str:
    return sku


@shop.saga
async def buy(s: Saga, sku: str) -> str:
    return await s.step(ship, sku)


@shop.saga
async def buy_all(s: Saga, skus: list[str]) -> list[str]:
    return [await s.child(buy, sku) for sku in skus]


async def test_sagas_are_found_by_text_parent_and_page(tmp_path: Path):
    """A text stands anywhere in what went in or came out, its signs are plain; children and pages are exact."""
    async with Database(sqlite_url(tmp_path, "shop"), "shop") as database:
        host = Host(shop, database)
        await host.runtime.open()
        await host.start()
        parent = await host.sagas.start(buy_all, ["Mug 50%", "lamp_1", "lampx1"])
        await parent.result(10)

        async def found(**arguments: Any) -> list[Any]:
            rows = await host.runtime.admin("list", arguments)
            return [(row["type"], row["id"]) for row in rows]

        assert len(await found(text="mug 50%")) == 2
        assert len(await found(text="lamp_1")) == 2
        assert len(await found(text="g 5_%")) == 0
        assert [kind for kind, _ in await found(parent=parent.id)] == ["buy"] * 3
        assert await found(parent="zzz") == []
        every = await found()
        first = await found(limit=2)
        assert await found(before=first[-1][1], limit=10) == every[2:]
        await host.stop()
