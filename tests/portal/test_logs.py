"""Logs in the portal: a hundred thousand lines stay smooth, what comes new never moves what is being read."""

from __future__ import annotations

import json

import pytest
from playwright.async_api import Browser, Page, expect
from tests.portal.conftest import PHONE, looking, needs_chromium, settled
from tests.portal.front import Front
from tests.portal.planted import HOSTILE, TRACE
from tests.portal.visitor import Visitor

from seamline.observe.records import Log
from seamline.observe.store.query import LogQuery
from seamline.portal.pages.logs import fits, line_of

LINE = Log(1_700_000_000_000_000_000, 13, "orders", "Cart 17 is empty", workload="web", exception="ValueError: no")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (LogQuery(), True), (LogQuery(module="orders"), True), (LogQuery(module="web"), True),
        (LogQuery(module="cart"), False), (LogQuery(severity=13), True), (LogQuery(severity=17), False),
        (LogQuery(text="empty cart"), True), (LogQuery(text="valueerror"), True), (LogQuery(text="cart full"), False),
        (LogQuery(trace_id=TRACE.hex()), False),
    ],
)  # fmt: skip
def test_a_new_line_is_shown_if_the_store_would_find_it(query: LogQuery, found: bool):
    """Module or workload, level, trace, and every word of a text."""
    assert fits(LINE, query) is found


def test_a_line_of_any_size_and_kind_becomes_json():
    """A megabyte is cut and said, bytes and lone surrogates pass, and the script's columns are in order."""
    big = Log(1, 9, "m", "x" * 1_000_000, attributes={"b": b"\xff", "s": "\ud800"})
    found = line_of(big, "hue-1")
    assert len(json.dumps(found)) < 20_000
    assert "more characters" in found[3]
    assert found[9] == [("b", "1 bytes: ff"), ("s", "\ud800")]


async def test_lines_are_paged_without_gap(front: Front):
    """Every planted line comes exactly once over all pages, the newest first."""
    visitor, found, cursor = Visitor(front), list[float](), ""
    while True:
        reply = json.loads((await visitor.get(f"/logs/lines?span=24h&cursor={cursor}")).text)
        found += [line[0] for line in reply["lines"]]
        cursor = reply["next"]
        if not cursor:
            break
    assert found == sorted(found, reverse=True)
    assert len(found) > 2_200


async def tell(front: Front, page: Page, lines: list[Log]) -> None:
    """When the page listens."""
    observatory = front.portal.observatory
    assert observatory is not None
    for _ in range(100):
        if observatory.live.heard("logs"):
            break
        await page.wait_for_timeout(50)
    observatory.live.tell("logs", lines)


def lines(front: Front, count: int, text: str = "line") -> list[Log]:
    now_ns = front.portal.now_ns()
    return [Log(now_ns + n * 1000, 9, "orders", f"{text} {n}", workload="web") for n in range(count)]


@pytest.mark.usefixtures("front")
class TestInABrowser:
    pytestmark = needs_chromium

    async def test_a_hundred_thousand_lines_cost_as_many_elements_as_a_screen(self, front: Front, browser: Browser):
        """Whatever the length, the page holds the lines in sight; scrolling anywhere draws what is there."""
        async with looking(browser) as (page, complaints):
            await page.goto(front.address("/logs?text=flood"))
            await settled(page)
            for part in range(50):
                await tell(front, page, lines(front, 2_000, f"flood {part}"))
                await expect(page.locator("#log-count")).to_contain_text(f"{(part + 1) * 2_000:,} lines")
            for share in (0, 0.3, 0.7, 1):
                await page.evaluate(
                    "share => { const v = document.querySelector('.log-view'); v.scrollTop = share * v.scrollHeight; }",
                    share,
                )
                await page.wait_for_function(
                    """() => { const v = document.querySelector('.log-view').getBoundingClientRect();
                        const at = document.elementFromPoint(v.x + 200, v.y + v.height / 2);
                        return at && at.closest('.log-row') && document.querySelectorAll('.log-row').length < 90; }"""
                )
            assert await page.evaluate("document.querySelectorAll('*').length") < 2_500
            assert complaints == []

    async def test_what_is_read_stays_where_it_is(self, front: Front, browser: Browser):
        """Scrolled away from the end, new lines are counted and nothing moves; at the end, the list follows."""
        async with looking(browser) as (page, _):
            await page.goto(front.address("/logs?text=flood"))
            await settled(page)
            await tell(front, page, lines(front, 500, "flood"))
            await expect(page.locator("#log-count")).to_contain_text("500 lines")
            view = page.locator(".log-view")
            at_end = "v => v.scrollTop + v.clientHeight >= v.scrollHeight - 30"
            assert await view.evaluate(at_end)
            await view.evaluate("v => { v.scrollTop = 3000; }")
            await page.wait_for_function("document.querySelector('.log-row')")
            seen = "() => document.elementFromPoint(500, 500).closest('.log-row')?.innerText"
            await page.wait_for_function(seen)
            before = await page.evaluate(seen)
            await tell(front, page, lines(front, 300, "flood later"))
            await expect(page.locator("#log-more")).to_have_text("300 new below")
            assert await page.evaluate(seen) == before
            await page.locator("#log-more").click()
            assert await view.evaluate(at_end)
            await tell(front, page, lines(front, 10, "flood last"))
            await expect(page.locator(".log-row").last).to_contain_text("flood last 9")
            assert await view.evaluate(at_end)

    async def test_paused_nothing_comes_and_nothing_is_lost(self, front: Front, browser: Browser):
        """f pauses and follows; what came meanwhile is there then."""
        async with looking(browser) as (page, _):
            await page.goto(front.address("/logs?text=flood"))
            await settled(page)
            await tell(front, page, lines(front, 5, "flood"))
            await expect(page.locator("#log-count")).to_contain_text("5 lines")
            await page.keyboard.press("f")
            await tell(front, page, lines(front, 7, "flood more"))
            await expect(page.locator("#log-count")).to_contain_text("paused, 7 wait")
            assert await page.locator(".log-row").count() == 5
            await page.keyboard.press("f")
            await expect(page.locator("#log-count")).to_contain_text("12 lines")

    async def test_a_line_opens_with_all_its_fields(self, front: Front, browser: Browser):
        """By key: Enter opens, arrows walk on; exception and fields are texts, and the trace is a link."""
        async with looking(browser, PHONE) as (page, complaints):
            await page.goto(front.address("/logs?level=17"))
            await settled(page)
            line = page.locator(".log-line").last
            await line.focus()
            await page.keyboard.press("Enter")
            await expect(page.locator(".log-details pre")).to_contain_text("<b>no route</b>")
            await expect(page.locator(f'.log-row a[href^="/traces/{TRACE.hex()}"]').last).to_be_visible()
            await page.keyboard.press("ArrowUp")
            await expect(page.locator(".log-line").nth(-2)).to_be_focused()
            await tell(front, page, [Log(front.portal.now_ns(), 17, HOSTILE, HOSTILE, exception=HOSTILE)])
            await expect(page.locator(".log-row").last).to_contain_text("<script>")
            assert "owned" not in await page.title()
            assert complaints == []
