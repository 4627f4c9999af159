"""Every page of the portal, on the boutique as it runs, in both topologies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect
from tests.portal.conftest import looking, needs_chromium, settled
from tests.portal.live_boutique import drilled, look_everywhere, shopping, signed_in

pytestmark = needs_chromium
FLAT_S = 600
GROWTH_MAX = 1.3


@pytest.mark.parametrize("topology", ["monolith", "services"])
async def test_every_page_of_a_shop_under_load(browser: Browser, tmp_path: Path, topology: str):
    """Wide and narrow: no complaint of the console, nothing serious for axe, nothing sticks out."""
    async with shopping(topology, tmp_path) as boutique:
        assert await look_everywhere(browser, boutique) == []


@pytest.mark.torture
@pytest.mark.parametrize("topology", ["monolith", "services"])
async def test_a_fault_appears_with_its_cause_on_the_open_page(browser: Browser, tmp_path: Path, topology: str):
    """Within half a minute, without a reload: the list suspects the module, and its page shows the evidence."""
    async with shopping(topology, tmp_path, rate=20) as boutique, looking(browser) as (page, complaints):
        base = await signed_in(page, boutique)
        await asyncio.sleep(60)
        assert await drilled(page, boutique, base, "currency") < 30
        await expect(page.locator("main")).to_contain_text("currency's own, without the calls that it makes")
        assert complaints == []


@pytest.mark.torture
async def test_a_browser_that_is_left_open_does_not_grow(browser: Browser, tmp_path: Path):
    """Ten minutes on the two livest pages under load: the heap after a collection stays what it was after one."""
    async with shopping("monolith", tmp_path, seconds=FLAT_S + 120) as boutique, looking(browser) as (page, _):
        base = await signed_in(page, boutique)
        tools: Any = await page.context.new_cdp_session(page)
        await tools.send("Performance.enable")

        async def heap() -> float:
            await tools.send("HeapProfiler.collectGarbage")
            found = await tools.send("Performance.getMetrics")
            return next(each["value"] for each in found["metrics"] if each["name"] == "JSHeapUsedSize")

        for path in ("/", "/topology"):
            await page.goto(base + path)
            await settled(page)
            await asyncio.sleep(60)
            before = await heap()
            await asyncio.sleep(FLAT_S / 2)
            assert await heap() < GROWTH_MAX * before, path
