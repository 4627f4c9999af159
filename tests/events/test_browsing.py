"""People leaf through a module's log: by page, from an offset, and by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.events.shop import Sold, running, shop

from seamline import Event
from seamline.events import operations

OWNERS: dict[type[Event], str] = {Sold: "shop"}


async def test_a_log_is_read_backwards_page_by_page(tmp_path: Path):
    """Each page ends where the one after it began, none is shown twice, and ``since`` says where to go on."""
    async with running(tmp_path, shop(), owners=OWNERS) as process:
        await process.events.publish_all([Sold(sku=f"sku{n % 3}", number=n) for n in range(25)])

        async def tail(**arguments: Any) -> dict[str, Any]:
            return await process.runtime.admin("tail", {"module": "shop", **arguments})

        offsets: list[int] = []
        page = await tail(limit=10)
        while page["records"]:
            offsets = [each["offset"] for each in page["records"]] + offsets
            page = await tail(limit=10, before=page["since"])
        assert offsets == [each["offset"] for each in (await tail(after=0, limit=99))["records"]]
        assert len(offsets) == 25
        assert page["since"] == page["first"]


async def test_the_events_of_one_key_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Forwards and backwards, only as far back as it says, and a key that was never used finds nothing."""
    async with running(tmp_path, shop(), owners=OWNERS) as process:
        await process.events.publish_all([Sold(sku=f"sku{n % 5}", number=n) for n in range(50)])

        async def keys(**arguments: Any) -> list[str]:
            found = await process.runtime.admin("tail", {"module": "shop", **arguments})
            return [each["key"] for each in found["records"]]

        assert await keys(key="sku3", limit=99) == ["sku3"] * 10
        assert await keys(key="sku3", limit=4) == ["sku3"] * 4
        assert await keys(key="sku3", after=0, limit=99) == ["sku3"] * 10
        assert await keys(key="'; DROP TABLE", limit=99) == []
        monkeypatch.setattr(operations, "TAIL_MAX", 10)
        monkeypatch.setattr(operations, "LOOK_MAX", 20)
        page = await process.runtime.admin("tail", {"module": "shop", "key": "none", "limit": 9})
        assert page["records"] == []
        assert page["through"] - page["since"] == 19
        assert page["first"] < page["since"]
