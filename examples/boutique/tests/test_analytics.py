"""Analytics: the numbers are those of the shop's events, in every topology, and the page shows them."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import pytest
from boutique.analytics import Analytics, Report
from boutique.analytics.chart import HEIGHT, WIDTH, bars, columns
from boutique.analytics.module import AnalyticsService
from boutique.analytics.views import cents, declare, pieces_of
from boutique.cart import Cart, CartUpdated
from boutique.checkout import Checkout, OrderLine, OrderPlaced, Purchase
from boutique.frontend import ProductViewed
from boutique.money import Money
from boutique.payments import Card
from boutique.people import Address
from playwright.async_api import async_playwright

from seamline import Database, Event, Module, PermissionDenied
from seamline.events.streams import View, Views, ViewsService
from seamline.kernel.clock import ManualClock
from seamline.kernel.store import sqlite_url
from seamline.testing.app import TopologyApp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CARD = Card("5555 5555 5555 4444", 12, 2034, "321")
HOME = Address("Ada Example", "Lindenlaan 12", "9000", "Ghent", "BE")
START = datetime(2026, 5, 4, 9, tzinfo=UTC)
T = TypeVar("T")


async def eventually(ask: Callable[[], Awaitable[T]], good: Callable[[T], bool]) -> T:
    """The first good answer; what follows from an event comes a moment after it."""
    async with asyncio.timeout(30):
        while True:
            answer = await ask()
            if good(answer):
                return answer
            await asyncio.sleep(0.02)


async def test_what_a_shopper_does_is_in_the_report(topology_app: TopologyApp):
    """One looks, fills a basket and orders; another leaves a basket behind, which the passing of time tells."""
    app = topology_app
    before = await app.stub(Analytics).report()
    cart = app.stub(Cart)
    await cart.add("left-behind", "brass-pen", 1)
    await app.http.get("/product/wool-throw", headers={"cookie": "shopper=who-orders-1"})
    contents = await cart.add("who-orders-1", "wool-throw", 2)
    purchase = Purchase("who-orders-1", contents.version, "EUR", "ada@example.com", HOME, CARD)
    order = await app.stub(Checkout).place("analytics-1", purchase)

    # Two changes of baskets, a look that two views count and an order that four do: time stands until all are in.
    # Events of others may still come in, too, and are no sign that ours have.
    report = await eventually(
        app.stub(Analytics).report,
        lambda each: (
            each.counted >= before.counted + 8
            and sum(minute.orders for minute in each.minutes) > sum(minute.orders for minute in before.minutes)
            and ("wool-throw", 2) in [(seller.product_id, seller.pieces) for seller in each.sellers]
        ),
    )
    assert any(each.total.amount >= order.total.amount for each in report.takings)

    async def later() -> Report:
        app.clock.advance(1)
        return await app.stub(Analytics).report()

    app.clock.advance(1860)
    report = await eventually(later, lambda each: sum(b.abandoned for b in each.baskets) >= 1)
    assert sum(each.ordered for each in report.baskets) >= 1
    page = await app.http.get("/analytics/")
    assert page.status == 200
    assert "Wool Throw" in page.text


async def test_who_may_not_does_not_see_who_looked_at_what(topology_app: TopologyApp):
    """The report is analytics' own; the views behind it are nobody's without a permit."""
    with pytest.raises(PermissionDenied):
        await topology_app.stub(Analytics, caller="ads").report()


class Desk:
    """The views on a database of their own, fed as their handlers would be."""

    def __init__(self, database: Database) -> None:
        self.db = database
        self.clock = ManualClock(START + timedelta(hours=3))
        self.module = Module("analytics")
        self.views: list[View] = declare(self.module)
        self._service = ViewsService(database)
        self.analytics = AnalyticsService(Views(["analytics"], lambda _: self._service), self.clock)

    async def start(self) -> None:
        for view in self.views:
            await view.prepare(self.db, self.clock)

    async def take(self, *events: Event) -> None:
        for view in self.views:
            wanted = [event for event in events if type(event) in view.events.values()]
            async with self.db.unit():
                await view.take(self.db, self.clock, wanted)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for view in self.views:
            await view.tick(self.db, self.clock)

    async def stop(self) -> None:
        await self._service.close()
        for view in self.views:
            await view.close(self.db)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncGenerator[Desk]:
    async with Database(sqlite_url(tmp_path, "analytics"), "analytics") as database:
        made = Desk(database)
        await made.start()
        yield made
        await made.stop()


def placed(at: datetime, shopper: str, total: str, currency: str = "EUR", **pieces: int) -> OrderPlaced:
    lines = tuple(OrderLine(name, name, number, Money(currency, Decimal(1))) for name, number in pieces.items())
    money = Money(currency, Decimal(total))
    return OrderPlaced(
        order_id=f"{shopper} {at}", shopper=shopper, currency=currency, total=money, lines=lines, placed_at=at
    )


async def test_the_report_is_what_a_list_of_the_events_says(desk: Desk):
    """Two hours of random visits, told in batches and not quite in order."""
    lots = random.Random(3)
    events: list[tuple[datetime, Event]] = []
    orders: list[OrderPlaced] = []
    for number in range(150):
        at, shopper = START + timedelta(seconds=lots.randrange(7200)), f"s{number}"
        events.append((at, ProductViewed(session=shopper, product_id="mug", at=at)))
        if lots.random() < 0.4:
            events.append((at, CartUpdated(shopper=shopper, pieces=2, version=1, at=at)))
            if lots.random() < 0.5:
                later = at + timedelta(seconds=lots.randrange(1, 1700))
                orders.append(
                    placed(later, shopper, f"{lots.randrange(10_000)}.{lots.randrange(100):02}", mug=2, pen=1)
                )
                events.append((later, orders[-1]))
    events.sort(key=lambda pair: pair[0])
    end = START + timedelta(hours=3)
    tail: list[Event] = [
        ProductViewed(session="end", product_id="mug", at=end),
        CartUpdated(shopper="end", pieces=1, version=1, at=end),
        placed(end, "nobody", "0"),
    ]
    for at in range(0, len(events), 20):
        chunk = [event for _, event in events[at : at + 20]]
        await desk.take(*chunk)
    await desk.take(*tail)
    await desk.pass_time(60)
    report = await desk.analytics.report(minutes=6 * 60)
    baskets = [event for _, event in events if isinstance(event, CartUpdated)]
    assert report.late == 0
    assert sum(each.orders for each in report.minutes) == len(orders) + 1
    assert report.takings[0].total.amount == sum((each.total.amount for each in orders), Decimal(0))
    assert (report.visits, report.bought) == (152, len(orders) + 1)
    assert (sum(each.ordered for each in report.baskets), sum(each.abandoned for each in report.baskets)) == (
        len(orders), len(baskets) - len(orders),
    )  # fmt: skip


async def test_yen_are_counted_as_exactly_as_euros(desk: Desk):
    now = desk.clock.now()
    await desk.take(placed(now, "a", "2021", "JPY"), placed(now, "b", "0.1"), placed(now, "c", "0.2"))
    takings = (await desk.analytics.report()).takings
    assert [(each.orders, str(each.total)) for each in takings] == [(2, "0.3 EUR"), (1, "2021 JPY")]
    assert cents(Money("EUR", Decimal("19.99"))) == 1999


async def test_a_quiet_shop_has_a_report_too(desk: Desk):
    report = await desk.analytics.report(minutes=10_000)
    assert len(report.minutes) == 6 * 60
    assert (report.visits, report.takings, report.sellers) == (0, (), ())


def test_two_lines_of_one_product_are_its_pieces_together():
    order = placed(START, "a", "3", mug=2)
    twice = OrderPlaced(
        order_id="x", shopper="a", currency="EUR", total=order.total, lines=order.lines * 2, placed_at=START
    )
    assert pieces_of(twice) == {"mug": 4}


@pytest.mark.parametrize("most", [0, 1, 3, 17, 999, 10_001])
def test_no_bar_stands_out_of_its_chart(most: int):
    rows = [(START + timedelta(minutes=n), most, n % (most + 1)) for n in range(60)]
    for chart in (columns(rows), bars(rows)):
        assert all(bar.lower >= 0 and max(bar.upper, bar.lower) <= HEIGHT + 0.01 for bar in chart.bars)
        assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH for bar in chart.bars)
        assert chart.lines[0][1] >= most
    assert all(bar.lower + bar.upper <= HEIGHT + 0.01 for bar in bars(rows).bars)
    assert columns([]).bars == ()


@pytest.mark.needs_server
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.seamline(topologies=["local"])
@pytest.mark.parametrize("width", [1240, 390], ids=["wide", "phone"])
async def test_the_page_fits_and_brings_itself_up_to_date(topology_app: TopologyApp, width: int):
    """A visit that begins while somebody watches shows without a reload; the console has nothing to say."""
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = await browser.new_page(viewport={"width": width, "height": 900}, base_url=topology_app.http.base_url)
            complaints: list[str] = []
            page.on("console", lambda message: complaints.append(message.text))
            await page.goto("/analytics/")
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            visits = await page.locator(".tiles .note").first.inner_text()
            somebody = {"cookie": f"shopper=somebody-new-{width}"}
            await topology_app.http.get("/product/brass-pen", headers=somebody)
            await page.wait_for_function(
                "before => document.querySelector('.tiles .note').innerText !== before", arg=visits, timeout=20_000
            )
            assert complaints == []
        finally:
            await browser.close()
