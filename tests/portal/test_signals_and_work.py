"""Every page of signals, work and trust: read by axe, wide and narrow, dark and light, full of hostile texts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import Browser, ViewportSize
from tests.portal.conftest import PHONE, WIDE, accessible, fits, looking, needs_chromium, settled
from tests.portal.front import Front
from tests.portal.planted import HOSTILE, TRACE
from tests.portal.visitor import Visitor
from tests.portal.work import ASKS, SAGA, STUCK, plant, plant_audit

PATHS = [
    "/traces",
    f"/traces/{TRACE.hex()}",
    f"/traces/compare?a={TRACE.hex()}&b={TRACE.hex()}",
    f"/traces/compare?a={TRACE.hex()}",
    "/logs",
    "/logs?level=13",
    "/metrics?before=1h",
    "/metrics?name=shop.cart.size",
    "/incidents",
    "/incidents/INC-7",
    "/events",
    "/events/topics/checkout",
    "/events/topics/inventory",
    "/events/groups/inventory/inventory.on_order",
    "/events/dead",
    "/events/dead/inventory/2",
    "/sagas",
    f"/sagas/{SAGA}",
    f"/sagas/{STUCK}",
    f"/sagas/{ASKS}",
    "/policy?caller=checkout&callee=payments",
    "/policy?view=rules",
    "/policy?view=test&caller=checkout&call=Payments.charge&user=bo&roles=lead",
    "/policy?view=used",
    "/audit",
]

LOOKS: list[tuple[ViewportSize, Literal["light", "dark"]]] = [(WIDE, "light"), (PHONE, "dark")]
"""Colours do not depend on the width, so two of the four looks have all there is to find."""


@pytest.fixture(autouse=True)
def planted_work(front: Front, shop: Path) -> None:
    plant(front.admin)
    plant_audit(shop)


@pytest.mark.parametrize("path", PATHS)
async def test_whatever_others_wrote_is_text(front: Front, path: str):
    """Nothing that came from outside stands in a page as markup, nor does a page fail on it."""
    reply = await Visitor(front, "viewer").get(path)
    assert reply.status == 200, reply.text[:2000]
    assert "<script" not in reply.text
    assert HOSTILE not in reply.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/traces/{1:032x}", 404), ("/traces/zz", 422), ("/traces?slower=nan", 400), ("/traces?where=x", 400),
        ("/traces?span=9y", 400),
        ("/traces?from=2026-01-02T00:00&until=2026-01-01T00:00", 400), ("/traces/compare", 400),
        (f"/traces/{TRACE.hex()}/spans/00", 404), (f"/traces/{TRACE.hex()}/rows?first=x", 400), ("/logs?level=x", 400),
        ("/metrics?before=2h", 400), ("/incidents/INC-99", 404), ("/events/topics/checkout?after=-1", 400),
        ("/events/topics/checkout?before=99999999999999999999", 400), ("/events/groups/inventory/none", 404),
        ("/sagas/none", 404), ("/policy?view=none", 400), ("/policy?view=test&caller=a&call=b&args=[1]", 400),
        ("/audit?cursor=x", 400), (f"/audit?cursor=t|a|{'9' * 5000}", 400),
        (f"/events/dead/inventory/{'9' * 5000}", 400),
        ("/events/dead/inventory/x", 400), (f"/events/topics/checkout?after={'9' * 5000}", 400),
    ],
)  # fmt: skip
async def test_an_address_that_asks_for_nothing_is_told(front: Front, path: str, status: int):
    """A sentence with what is wrong, and not a page of something else."""
    reply = await Visitor(front).get(path)
    assert reply.status == status
    assert "<code>SL" in reply.text


@pytest.mark.usefixtures("front")
class TestInABrowser:
    pytestmark = needs_chromium

    @pytest.mark.parametrize("path", PATHS)
    async def test_it_can_be_seen_read_and_reached(self, front: Front, browser: Browser, path: str):
        """No complaint of the console, nothing serious for axe, nothing sticks out: dark, light, wide and narrow."""
        async with looking(browser) as (page, complaints):
            await page.goto(front.address(path))
            await settled(page)
            for size, scheme in LOOKS:
                await page.set_viewport_size(size)
                await page.emulate_media(color_scheme=scheme)
                assert await accessible(page) == [], (size, scheme)
                assert await fits(page), size
            assert complaints == []
            assert "owned" not in await page.title()
