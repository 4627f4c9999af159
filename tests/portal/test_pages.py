"""Overview, Topology and Modules: for everybody, with hostile names, for those who may only look."""

from __future__ import annotations

import json
import re

import pytest
from playwright.async_api import Browser, ViewportSize, expect
from tests.portal.conftest import PHONE, WIDE, accessible, fits, looking, needs_chromium, settled
from tests.portal.front import FakeObservatory, Front
from tests.portal.planted import HOSTILE, STEP

from seamline.kernel.signal.metrics import EdgeStats
from seamline.observe.records import Batch, Source, Traffic

pytestmark = needs_chromium
PATHS = ["/", "/topology", "/topology?node=m:payments", "/modules", "/modules/checkout?try=Checkout.place", "/nowhere"]


def watched(front: Front) -> FakeObservatory:
    found = front.portal.observatory
    assert isinstance(found, FakeObservatory)
    return found


def told(front: Front, caller: str, callee: str, method: str, calls: int = 60) -> None:
    """Calls that have just been counted, on either side."""
    observatory = watched(front)
    at_ns = observatory.latest[-1].at_ns + STEP
    for side in ("client", "server"):
        stats = EdgeStats()
        for _ in range(calls):
            stats.record(0.004)
        flow = stats.take(caller, callee, method, side)
        assert flow is not None
        traffic = Traffic(caller, callee, method, side, flow.calls, 0, 0, 0, flow.sum_ns, flow.histogram, {})
        window = observatory.add(Batch(Source("till"), at_ns, STEP, traffic=[traffic]))
    observatory.live.tell("windows", window)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
async def test_pages_are_for_everybody(front: Front, browser: Browser, viewport: ViewportSize, scheme: str):
    """axe finds nothing serious, nothing sticks out at the side, the console is silent."""
    async with looking(browser, viewport, scheme) as (page, complaints):
        await page.goto(front.address())
        await settled(page)
        for path in PATHS:
            await page.goto(front.url + path)
            await settled(page)
            if path == "/nowhere":
                assert ["404" in each for each in complaints] == [True]
                complaints.clear()
            if "node=" in path:
                await expect(page.get_by_role("complementary")).to_contain_text("payments")
            assert await accessible(page) == [], path
            assert await fits(page), path
        assert complaints == []


async def test_the_overview_says_how_things_are(front: Front, browser: Browser):
    """Trouble is named where it is, with its incident, its promise, what changed and what it costs."""
    async with looking(browser) as (page, _):
        await page.goto(front.address())
        await settled(page)
        payments = page.get_by_role("link", name=re.compile("in trouble payments"))
        await expect(payments).to_contain_text("suspected in INC-7")
        await expect(page.get_by_role("link", name=re.compile("well catalog"))).to_be_visible()
        await expect(page.get_by_role("region", name="Open incidents")).to_contain_text(
            "Payments.charge is slow and fails"
        )
        await expect(page.get_by_role("region", name="Service levels")).to_contain_text("the budget is spent")
        await expect(page.get_by_role("region", name="What changed last")).to_contain_text("payments 2.4.0 to 2.4.1")
        await expect(page.get_by_role("group", name="CPU of each module")).to_contain_text("checkout")
        assert await page.locator(".chart canvas").count() == 3


async def test_news_come_without_a_reload(front: Front, browser: Browser):
    """A module that nobody called until now shows up in the figures, and what was focused stays focused."""
    async with looking(browser) as (page, complaints):
        await page.goto(front.address())
        await settled(page)
        module = page.get_by_role("link", name=re.compile("inventory")).first
        await module.focus()
        told(front, "frontend", "payments", "Payments.refund", calls=4000)
        await expect(page.get_by_role("region", name="Slowest edges")).to_contain_text("frontend to payments")
        assert await page.evaluate("document.activeElement.getAttribute('href')") == "/modules/inventory"
        assert complaints == []


async def test_names_of_others_do_nothing(front: Front, browser: Browser):
    """A module, a method, a mark and a text with markup and turned writing are words on the page, and no more."""
    async with looking(browser) as (page, complaints):
        told(front, "frontend", HOSTILE, f"{HOSTILE}.place")
        await page.goto(front.address())
        await settled(page)
        for path in ("/", "/topology", "/modules", "/modules/checkout"):
            await page.goto(front.url + path)
            await settled(page)
            await expect(page.locator("main")).to_contain_text("<script>")
            assert await page.title() != "owned"
        await page.goto(front.url + "/modules")
        await page.get_by_role("link", name=HOSTILE).click()
        await expect(page.locator("h1")).to_have_text(HOSTILE)
        await page.get_by_role("link", name="Topology", exact=True).last.click()
        await expect(page.get_by_role("complementary")).to_contain_text("<script>")
        assert await page.title() == "Topology · Seamline"
        assert complaints == []


async def test_a_viewer_sees_and_acts_on_nothing(front: Front, browser: Browser):
    """No button is there, and whoever sends the form without it is refused."""
    async with looking(browser) as (page, _):
        await page.goto(front.address("/topology?node=w:till", "viewer"))
        await expect(page.get_by_role("complementary")).to_contain_text("ready")
        for name in ("Switch", "Scale", "Restart", "Try it"):
            assert await page.get_by_role("button", name=name).count() == 0
        await page.goto(front.url + "/modules/checkout?try=Checkout.place")
        await expect(page.get_by_text("Trying it takes the role operator").last).to_be_visible()
        statuses = await page.evaluate(
            """async () => {
                const { page } = JSON.parse(localStorage.getItem("seamline.session"));
                const headers = { "hx-request": "true", "x-seamline-page": page };
                const paths = ["/topology/switch", "/topology/scale", "/topology/restart", "/modules/checkout/try"];
                return Promise.all(paths.map(async path => (await fetch(path, { method: "POST", headers })).status));
            }"""
        )
        assert statuses == [403] * 4
        assert [op for op, _, _ in front.admin.asked if op != "describe"] == []


async def test_the_topology_is_switched_with_a_word_on_how_it_goes(front: Front, browser: Browser):
    """Asked first, told step by step, done as who is signed in."""
    async with looking(browser) as (page, complaints):
        await page.goto(front.address("/topology", "operator"))
        await settled(page)
        await page.get_by_label("Switch to").select_option("services")
        await page.get_by_role("button", name="Switch").click()
        await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        assert front.admin.asked == []
        await page.get_by_role("button", name="Switch").click()
        asking = page.get_by_role("dialog", name="Switch the topology?")
        await asking.get_by_role("button", name="Switch").click()
        progress = page.get_by_role("dialog", name="Switching the topology")
        await expect(progress).to_contain_text("draining what is replaced")
        await expect(progress).to_contain_text("The topology is services now.")
        await progress.get_by_role("button", name="Close").click()
        await expect(page.locator("#topology-now")).to_contain_text("services")
        assert front.admin.asked == [("switch", "session 1", {"topology": "services"})]
        assert complaints == []


async def test_a_workload_is_scaled_from_its_panel(front: Front, browser: Browser):
    """By keyboard alone: Enter in the field, Tab and Enter in the question."""
    async with looking(browser) as (page, _):
        await page.goto(front.address("/topology?node=w:till"))
        panel = page.get_by_role("complementary")
        await panel.get_by_role("spinbutton", name="Replicas").fill("3")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog", name="Scale till?")).to_be_visible()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("dialog", name="Scale till?").last).to_contain_text("till has 3 replicas now.")
        assert front.admin.asked == [("scale", "session 1", {"replicas": {"till": 3}})]


async def test_the_picture_stays_where_it_is(front: Front, browser: Browser):
    """New figures and a new edge move no module; a module that moves to another workload does."""
    async with looking(browser) as (page, complaints):
        await page.goto(front.address("/topology"))
        await settled(page)
        await expect(page.locator("#topology-graph canvas").first).to_be_attached()
        places = "JSON.stringify(document.querySelector('#topology-graph').picture())"
        before = json.loads(await page.evaluate(places))
        told(front, "frontend", "inventory", "Inventory.count")
        await expect(page.locator("#topology-edges")).to_contain_text("frontend to inventory")
        after = json.loads(await page.evaluate(places))
        assert {**after["nodes"]} == {**before["nodes"]}
        assert len(after["edges"]) == len(before["edges"]) + 1
        assert before["nodes"]["m:checkout"]["parent"] == "w:till"
        assert complaints == []


async def test_a_method_is_tried(front: Front, browser: Browser):
    """The form makes JSON of the right types; result, time and trace are shown."""
    async with looking(browser) as (page, complaints):
        await page.goto(front.address("/modules/checkout?try=Checkout.place"))
        await settled(page)
        form = page.locator("form.try").filter(has_text="currency")
        await form.get_by_label("user").fill("ann")
        await form.get_by_label("number").fill("4242")
        await form.get_by_label("year").fill("2034")
        await form.get_by_label("lines").fill('[{"sku": "mug", "count": 2}]')
        await form.get_by_label("gift").check()
        await form.get_by_role("button", name="Try it").click()
        result = page.locator("[id='tried-Checkout.place']")
        await expect(result).to_contain_text('"id": "o-1"')
        await expect(result).to_contain_text("12.5 ms")
        op, _, asked = front.admin.asked[-1]
        assert (op, asked["module"], asked["method"]) == ("try", "checkout", "Checkout.place")
        assert asked["arguments"] == {
            "user": "ann", "card": {"number": "4242", "year": 2034}, "lines": [{"sku": "mug", "count": 2}],
            "currency": "EUR", "gift": True,
        }  # fmt: skip
        await form.get_by_label("lines").fill("two mugs")
        await form.get_by_role("button", name="Try it").click()
        await expect(page.locator(".toast")).to_contain_text("'lines' is 'two mugs'")
        assert complaints == []


async def test_a_refusal_shows_the_permit_to_add(front: Front, browser: Browser):
    """As policy says it; markup in it is text."""
    remedy = 'Add to policy/checkout.cedar: permit (principal == Module::"portal", ...); ' + HOSTILE
    error = {"code": "permission_denied", "error": "SL3007", "message": "not permitted", "remedy": remedy, "detail": ""}
    front.admin.answers["try"] = lambda _: {"error": error, "duration_ms": 0.2, "trace_id": "ab" * 16}
    async with looking(browser) as (page, complaints):
        await page.goto(front.address("/modules/checkout?try=Checkout.look"))
        await settled(page)
        await page.get_by_label("order", exact=True).fill("7")
        await page.get_by_role("button", name="Try it").first.click()
        result = page.locator("[id='tried-Checkout.look']")
        await expect(result).to_contain_text('Module::"portal"')
        await expect(result).to_contain_text("<script>")
        assert complaints == []


async def test_a_module_is_looked_at_over_longer(front: Front, browser: Browser):
    """An hour comes from the store, one method of it alone too, and the address says so."""
    async with looking(browser) as (page, complaints):
        await page.goto(front.address("/modules/catalog"))
        await settled(page)
        await page.get_by_label("Time", exact=True).select_option("1h")
        await page.wait_for_url("**/modules/catalog?span=1h")
        await page.get_by_role("link", name="Catalog.get").click()
        await page.wait_for_url("**method=Catalog.get**")
        await expect(page.get_by_role("heading", name="Catalog.get")).to_be_visible()
        assert await page.locator(".chart canvas").count() == 3
        assert complaints == []
