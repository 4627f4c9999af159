"""The boutique with its observer, shoppers in it, and a browser that opens every page of its portal.

``python -m tests.portal.live_boutique docs/images`` takes the pictures of the documentation.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, ViewportSize, async_playwright, expect
from tests.portal.conftest import CHROMIUM, PHONE, WIDE, accessible, fits, looking, settled

from seamline.kernel.errors import SeamlineError
from seamline.run.admin import AdminClient

BOUTIQUE = Path(__file__).parents[2] / "examples" / "boutique"
PAGES = {
    "overview": "/",
    "topology": "/topology",
    "module": "/modules/checkout",
    "traces": "/traces",
    "logs": "/logs",
    "metrics": "/metrics",
    "events": "/events",
    "sagas": "/sagas",
    "incidents": "/incidents",
    "policy": "/policy",
    "audit": "/audit",
}
WAIT_S = 90.0


class Boutique:
    """One supervisor with fresh data."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.admin = AdminClient(data)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, verb: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "seamline.cli", verb, "--app", str(BOUTIQUE), "--data", str(self.data)]
        with (self.data.parent / f"{verb}.log").open("ab") as output:
            process = subprocess.Popen([*command, *arguments], stdout=output, stderr=subprocess.STDOUT)
        self.processes.append(process)
        return process

    async def ready(self) -> dict[str, Any]:
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            with contextlib.suppress(SeamlineError):
                status = await self.admin.ask("status")
                if status["ready"] and status["observer"]["pid"]:
                    return status
            await asyncio.sleep(0.1)
        raise AssertionError(f"not ready within {WAIT_S:g} s: {(self.data.parent / 'up.log').read_text()[-2000:]}")

    async def sign_in_url(self, role: str = "admin") -> str:
        token = await self.admin.ask("token", role=role)
        return f"{token['url']}/#token={token['token']}"

    def end(self) -> None:
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@asynccontextmanager
async def shopping(topology: str, folder: Path, rate: int = 8, seconds: int = 600) -> AsyncGenerator[Boutique]:
    """The boutique in ``topology``, with shoppers in it."""
    boutique = Boutique(folder / "data")
    try:
        boutique.start("up", "--topology", topology, "--port", "0")
        await boutique.ready()
        boutique.start("load", "--rate", str(rate), "--duration", str(seconds))
        yield boutique
    finally:
        boutique.end()


async def signed_in(page: Page, boutique: Boutique, role: str = "admin") -> str:
    """The address of the portal, where ``page`` has signed in."""
    url = await boutique.sign_in_url(role)
    await page.goto(url)
    await settled(page)
    return url.partition("/#")[0]


async def look_everywhere(browser: Browser, boutique: Boutique, *, pictures: Path | None = None) -> list[str]:
    """What is wrong with any page, wide or narrow: complaints, what axe finds, what sticks out."""
    wrong: list[str] = []

    async def look(name: str, viewport: ViewportSize) -> None:
        async with looking(browser, viewport) as (page, complaints):
            base = await signed_in(page, boutique)
            for title, path in PAGES.items():
                await page.goto(base + path)
                await settled(page)
                await asyncio.sleep(1.5)  # what is live comes in, and axe reads it, too
                if not await fits(page):
                    wrong.append(f"{path} {name}: sticks out")
                wrong.extend(f"{path} {name}: {each}" for each in await accessible(page))
                wrong.extend(f"{path} {name}: {each}" for each in complaints)
                complaints.clear()
                if pictures is not None:
                    await page.screenshot(path=pictures / f"{title}{'-phone' if name == 'narrow' else ''}.png")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(look("wide", WIDE))
        tasks.create_task(look("narrow", PHONE))
    return wrong


async def paint(page: Page, url: str) -> float:
    """From the navigation to the first contentful paint, in milliseconds."""
    await page.goto(url)
    await settled(page)
    return float(await page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))


async def drilled(page: Page, boutique: Boutique, base: str, module: str) -> float:
    """Seconds from planting a delay in ``module`` until the list of incidents, open in ``page``, suspects it.

    The page is not loaded again; afterwards it shows the incident.
    """
    await page.goto(base + "/incidents")
    await settled(page)
    began = time.monotonic()
    await boutique.admin.ask("drill", operation="run", fault="delay", module=module, for_s=60, yes=True)
    row = page.locator("#incident-rows tr", has_text=module).filter(has_text="slow by itself")
    await expect(row.first).to_be_visible(timeout=55_000)
    seconds = time.monotonic() - began
    await row.first.get_by_role("link").first.click()
    await settled(page)
    return seconds


async def _take_pictures(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as data:
        async with shopping("services", Path(data)) as boutique, async_playwright() as driver:
            browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            await asyncio.sleep(60)
            wrong = await look_everywhere(browser, boutique, pictures=folder)
            async with looking(browser) as (page, _):
                base = await signed_in(page, boutique)
                drill_s = await drilled(page, boutique, base, "currency")
                await asyncio.sleep(10)  # the second look, which knows more
                await page.screenshot(path=folder / "incident.png", full_page=True)
                await page.locator("a[href^='/traces/']").first.click()
                await settled(page)
                await page.screenshot(path=folder / "trace.png")
                paints = sorted([await paint(page, base + path) for path in PAGES.values()])
            await browser.close()
    paint_ms = {"median": paints[len(paints) // 2], "worst": paints[-1]}
    print(json.dumps({"wrong": wrong, "drill_s": round(drill_s, 1), "first_paint_ms": paint_ms}))  # noqa: T201


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    asyncio.run(_take_pictures(Path(sys.argv[1])))
