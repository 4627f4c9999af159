"""The portal on a loopback port over planted telemetry, and browsers that look at it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from playwright.async_api import Browser, Page, ViewportSize, async_playwright, expect
from tests.portal.front import FakeAdmin, FakeObservatory, Front
from tests.portal.planted import incident, planted

from seamline.kernel.clock import SystemClock
from seamline.kernel.settings import Settings
from seamline.observe.store import TelemetryReader, TelemetryStore
from seamline.portal.app import Portal

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = [
    pytest.mark.needs_server,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]
WIDE: ViewportSize = {"width": 1440, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}

_AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
_SETTINGS = """
[app]
name = "shop"
modules = ["shop.frontend", "shop.catalog", "shop.checkout", "shop.payments", "shop.inventory"]

[topologies.trio]
web = ["frontend"]
till = ["checkout", "payments"]
stock = ["catalog", "inventory"]

[observe.slos.placing]
target = "Checkout.place"
objective = 0.99
"""


expect.set_options(timeout=20_000)  # other work may have the machine


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the shop's settings and a quarter of an hour of its telemetry."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "seamline.toml").write_text(_SETTINGS)
    settings = Settings.load(folder, {})
    clock = SystemClock()
    now_ns = int(clock.now().timestamp() * 1e9)
    store = TelemetryStore(settings.data_folder / "telemetry", settings.observe, clock)
    store.start()
    for batch in planted(now_ns):
        store.add(batch)
    store.put_incident(incident(now_ns))
    store.close()
    return folder


@pytest.fixture
async def front(shop: Path) -> AsyncIterator[Front]:
    """The portal, served."""
    settings = Settings.load(shop, {})
    admin = FakeAdmin()
    reader = TelemetryReader(settings.data_folder / "telemetry")
    clock = SystemClock()
    observatory = FakeObservatory(planted(int(clock.now().timestamp() * 1e9)), settings.observe.slos)
    portal = Portal(reader=reader, observatory=observatory, admin=admin, settings=settings, clock=clock)
    async with Front(portal, admin).serving() as served:
        yield served
    reader.close()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as driver:
        found = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        await found.close()


@asynccontextmanager
async def looking(
    browser: Browser, viewport: ViewportSize = WIDE, scheme: Any = "light"
) -> AsyncGenerator[tuple[Page, list[str]]]:
    """A page in a context of its own, and what its console complained of."""
    context = await browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        yield page, complaints
    finally:
        await context.close()


async def settled(page: Page) -> None:
    """The content is there."""
    await page.wait_for_selector("main#content:not([aria-busy]) h1")


async def accessible(page: Page) -> list[str]:
    """What axe finds serious or critical."""
    await page.evaluate(_AXE.read_text(encoding="utf-8"))
    return await page.evaluate(
        """async () => (await axe.run()).violations
            .filter(each => ["serious", "critical"].includes(each.impact))
            .flatMap(each => each.nodes.map(node => `${each.id}: ${node.html.slice(0, 200)} ${node.failureSummary}`))"""
    )


async def fits(page: Page) -> bool:
    """Nothing sticks out at the side."""
    await asyncio.sleep(0)
    return await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
