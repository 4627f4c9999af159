"""The shop in a real browser, where Chromium is installed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from boutique.inventory import Inventory
from playwright.async_api import Page, ViewportSize, async_playwright

from seamline.testing.app import TopologyApp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.needs_server,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.seamline(topologies=["local"]),
]
WIDE: ViewportSize = {"width": 1240, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}


@asynccontextmanager
async def browsing(app: TopologyApp, viewport: ViewportSize) -> AsyncGenerator[tuple[Page, list[str]], None]:
    """A page, and what its console complained of."""
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page(viewport=viewport, base_url=app.http.base_url)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        try:
            yield page, complaints
        finally:
            await browser.close()


async def expect_fitting(page: Page, viewport: ViewportSize) -> None:
    """Nothing sticks out at the side, and every field has a name."""
    assert await page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], page.url
    nameless = await page.evaluate(
        """[...document.querySelectorAll("input:not([type=hidden]), select")]
            .filter(field => field.labels.length === 0).map(field => field.outerHTML)"""
    )
    assert nameless == [], page.url


async def test_a_shopper_buys_something(topology_app: TopologyApp):
    """From the shelf to the letter, with a refused card on the way, without a script or a complaint."""
    async with browsing(topology_app, WIDE) as (page, complaints):
        await page.goto("/")
        await page.get_by_role("link", name="Wool Throw").click()
        reviews = page.frame_locator("iframe")
        await page.locator("iframe").scroll_into_view_if_needed()
        await reviews.get_by_text("The dog has claimed it").wait_for()
        await page.get_by_label("How many").select_option("2")
        await page.get_by_role("button", name="Put in the bag").click()
        await page.get_by_label("Currency").select_option("JPY")
        await page.locator("header").get_by_role("button", name="Change").click()
        assert await page.get_by_text("¥20,212 each").is_visible()
        await page.get_by_role("link", name="Go to the till").click()
        assert complaints == []
        await page.get_by_label("Year").fill("2020")
        await page.get_by_role("button", name="Place the order").click()
        assert "nothing was charged" in await page.get_by_role("alert").inner_text()
        year = page.get_by_label("Year")
        assert await year.get_attribute("aria-invalid") == "true"
        assert await page.get_by_label("Security code").input_value() == ""
        await year.fill("2034")
        await page.get_by_label("Security code").fill("123")
        await page.get_by_role("button", name="Place the order").click()
        assert "Thank you, Ada Example" in await page.locator("h1").inner_text()
        refused = [*complaints]
        await page.get_by_role("link", name="a letter").click()
        while "Nothing here" in await page.locator("h1").inner_text():  # the letter follows from the order's event
            await page.reload()
        assert "2 x Wool Throw" in await page.locator("pre").inner_text()
        # The one complaint is the browser's own note of the refused form.
        assert ["422" in complaint for complaint in refused] == [True]


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
async def test_pages_fit_and_every_picture_shows(topology_app: TopologyApp, viewport: ViewportSize):
    """Nothing sticks out at the side, every picture loads, every field has a name."""
    async with browsing(topology_app, viewport) as (page, complaints):
        await page.goto("/product/brass-pen")
        await page.get_by_role("button", name="Put in the bag").click()
        for path in ("/", "/search?q=kitchen", "/product/canvas-tote", "/cart", "/checkout"):
            await page.goto(path)
            await expect_fitting(page, viewport)
            unseen = await page.evaluate(
                """async () => {
                    const pictures = [...document.images];
                    for (const picture of pictures) picture.loading = "eager";
                    await Promise.all(pictures.map(picture => picture.decode().catch(() => null)));
                    return pictures.filter(picture => picture.naturalWidth === 0).map(picture => picture.src);
                }"""
            )
            assert unseen == [], path
        assert complaints == []


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
async def test_a_large_order_is_looked_at(topology_app: TopologyApp, viewport: ViewportSize):
    """The shopper sees that it waits, the desk shows what it is, and one click later it is on its way."""
    async with browsing(topology_app, viewport) as (page, complaints):
        await page.goto("/product/wool-throw")
        for _ in range(2):
            await page.get_by_label("How many").select_option("10")
            await page.get_by_role("button", name="Put in the bag").click()
            await page.goto("/product/wool-throw")
        await page.goto("/checkout")
        await page.get_by_role("button", name="Place the order").click()
        assert "We look at your order" in await page.locator("h1").inner_text()
        order = page.url
        await expect_fitting(page, viewport)
        await page.goto("/desk/")
        assert await page.locator("h1").inner_text() == "Sign in"
        await expect_fitting(page, viewport)
        await page.get_by_label("Name").fill("bo")
        await page.get_by_label("Password").fill("needle")
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url("**/desk/")
        await expect_fitting(page, viewport)
        waiting = page.get_by_role("article", name="Order ")
        assert "20 \N{MULTIPLICATION SIGN} Wool Throw" in await waiting.inner_text()
        await waiting.get_by_role("button", name="Approve").click()
        await page.goto(order)
        while await page.locator("h1").inner_text() != "Thank you, Ada Example.":
            await page.reload()
        assert await page.get_by_text("The way of your parcel").is_visible()
        await page.goto("/desk/")
        assert await page.get_by_text("No order waits for a look.").is_visible()
        await page.goto("/")
        assert await page.get_by_text("Bo Weaver").count() == 1
        await page.get_by_role("link", name="Sign out").click()
        await page.get_by_role("button", name="Sign out").click()
        await page.wait_for_url("**/")
        assert await page.get_by_role("link", name="Sign in").is_visible()
        assert complaints == []


async def test_what_is_nearly_gone_says_so(topology_app: TopologyApp):
    """A few pieces are counted on the page and in the bag; none cannot be put in."""
    inventory = topology_app.stub(Inventory)
    (clock,) = await inventory.levels(("quiet-clock",))
    await inventory.restock("stocktaking", "quiet-clock", 3 - clock.free)
    async with browsing(topology_app, WIDE) as (page, complaints):
        await page.goto("/product/quiet-clock")
        assert await page.get_by_text("3 left").is_visible()
        await page.get_by_role("button", name="Put in the bag").click()
        assert await page.get_by_text("3 left").is_visible()
        await inventory.restock("stocktaking again", "quiet-clock", -3)
        await page.goto("/product/quiet-clock")
        assert await page.get_by_text("Sold out").is_visible()
        assert await page.get_by_role("button", name="Put in the bag").is_disabled()
        assert complaints == []


async def test_the_shop_is_dark_where_the_evening_is(topology_app: TopologyApp):
    """Colours follow the reader's wish."""
    async with browsing(topology_app, WIDE) as (page, _):
        await page.goto("/")
        light = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        await page.emulate_media(color_scheme="dark")
        dark = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert light == "rgb(250, 246, 239)"
        assert dark == "rgb(27, 30, 33)"
