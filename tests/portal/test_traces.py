"""Traces in the portal: found, folded, zoomed, read by key, compared; huge and hostile ones too."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect
from tests.portal.conftest import PHONE, fits, looking, needs_chromium, settled
from tests.portal.front import Front
from tests.portal.planted import HOSTILE, TRACE
from tests.portal.visitor import Visitor

from seamline.observe.records import Span, SpanEvent
from seamline.observe.waterfall import waterfall
from seamline.portal.app import Portal
from seamline.portal.errors import FieldError
from seamline.portal.pages.traces import DRAWN, bars
from seamline.portal.showing import attributes_in, quoted, shown

SECOND = 1_000_000_000


class Spans:
    """A reader that knows one trace, and for the rest is another reader."""

    def __init__(self, reader: object, spans: list[Span]) -> None:
        self._reader = reader
        self._spans = spans

    def __getattr__(self, name: str) -> object:
        return getattr(self._reader, name)

    def trace(self, trace_id: str) -> list[Span]:
        return self._spans if trace_id == "ab" * 16 else []


def shows(front: Front, spans: list[Span]) -> str:
    portal = front.portal
    reader = Spans(portal.reader, spans)
    front.show(Portal(reader, portal.observatory, portal.admin, portal.settings, portal.clock))  # pyright: ignore[reportArgumentType]
    return f"/traces/{'ab' * 16}"


def span(number: int, parent: int, start: int, length: int, **more: object) -> Span:
    ids = number.to_bytes(8, "big"), parent.to_bytes(8, "big") if parent else b""
    return Span(b"\xab" * 16, *ids, f"work {number}", "internal", "checkout", "", start, length, **more)  # pyright: ignore[reportArgumentType]


def test_bars_stand_where_their_spans_are():
    """Places are thousandths of the trace, whatever the spans' clocks say."""
    trace = waterfall([span(1, 0, 1000, 100), span(2, 1, 1025, 50), span(3, 1, 2000, -5)])
    found = {bar.row.span.name: (bar.x, bar.width) for bar in bars(trace)}
    assert found["work 2"] == (pytest.approx(25), pytest.approx(50))
    assert found["work 3"][1] == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a=b", {"a": "b"}), ('a=b "c=d e"', {"a": "b", "c": "d e"}), ("a=b=c", {"a": "b=c"}), ("", {}),
        (quoted("k", f"'\"{HOSTILE}"), {"k": f"'\"{HOSTILE}"}),
    ],
)  # fmt: skip
def test_attributes_are_read_as_they_were_written(text: str, found: dict[str, str]):
    """What a link of a span's panel says comes back as the same name and value."""
    assert attributes_in(text) == found


@pytest.mark.parametrize("text", ["a", "=b", '"a=b'])
def test_attributes_that_say_nothing_are_refused(text: str):
    """A word without a value, and a quote without its end."""
    with pytest.raises(FieldError):
        attributes_in(text)


def test_values_of_any_kind_are_shown():
    """Bytes, nested values, NaN and a megabyte of text become something short that can be read."""
    assert shown(b"\x00\xff") == "2 bytes: 00 ff"
    assert shown({"a": [b"\x01", None]}).count("\n") > 2
    assert shown(True) == "true"
    assert shown(float("nan")) == "nan"
    assert len(shown("x" * 1_000_000)) < 5_000
    assert "995,999 more" in shown("x" * 999_999)


async def test_a_trace_of_thousands_is_drawn_in_parts(front: Front):
    """The page holds the first part only, the rest is asked for, and a span deep inside can be linked to."""
    spans = [span(1, 0, 0, 10 * SECOND), *(span(n, 1, n * 1000, 500) for n in range(2, 3002))]
    path, visitor = shows(front, spans), Visitor(front)
    text = (await visitor.get(path)).text
    assert text.count('data-span="') == DRAWN
    assert "2,601 more spans" in text
    assert (await visitor.get(f"{path}/rows?first={DRAWN}")).text.count('data-span="') == DRAWN
    linked = (await visitor.get(f"{path}?span={2900:016x}")).text
    assert linked.count('data-span="') > 2800
    assert 'aria-selected="true"' in linked


async def test_everything_about_a_span_is_beside_it(front: Front):
    """Attributes of every type, an exception with its stack, links to other traces, and hostile texts as texts."""
    event = SpanEvent(5, "exception", {"exception.type": "E", "exception.stacktrace": f"line 1\n{HOSTILE}"})
    attributes = {"n": 1, "b": b"\xff", "list": [1, "two"], "text": HOSTILE}
    path = shows(front, [span(1, 0, 0, 100, status="internal", message=HOSTILE, attributes=attributes, events=[event])])
    text = (await Visitor(front).get(f"{path}/spans/{1:016x}")).text
    assert "1 bytes: ff" in text
    assert "line 1" in text
    assert "<script" not in text


async def test_traces_are_found_by_what_is_known_of_them(front: Front):
    """By module, outcome, duration and attribute; what fits nothing says so."""
    visitor = Visitor(front)
    failed = (await visitor.get("/traces?status=failed&module=payments&span=1h")).text
    assert "failed" in failed
    assert 'class="rowlink"' in failed
    for query in ("slower=900000", "where=card.brand%3Ddiners", "text=nowhere", "module=nobody"):
        assert "No trace fits" in (await visitor.get(f"/traces?{query}")).text, query
    assert TRACE.hex() in (await visitor.get("/traces?where=card.brand%3Dvisa&span=1h")).text


async def test_two_traces_are_compared(front: Front):
    """A slow trace laid over the usual one names who became slower."""
    visitor = Visitor(front)
    page = (await visitor.get("/traces?slower=150&span=1h")).text
    other = page.partition('href="/traces/')[2][:32]
    text = (await visitor.get(f"/traces/compare?a={TRACE.hex()}&b={other}")).text
    assert "Payments.charge" in text.partition('class="verdict"')[2].partition("</p>")[0]
    assert "slower" in text


@pytest.mark.usefixtures("front")
class TestInABrowser:
    pytestmark = needs_chromium

    async def test_a_waterfall_is_read_by_key(self, front: Front, browser: Browser):
        """Arrows walk and fold, Enter opens the span beside it and the address says so, Escape goes back."""
        async with looking(browser) as (page, complaints):
            await page.goto(front.address(f"/traces/{TRACE.hex()}"))
            await settled(page)
            rows = page.locator("tr[data-span]")
            await rows.first.focus()
            await page.keyboard.press("ArrowDown")
            await expect(rows.nth(1)).to_be_focused()
            await page.keyboard.press("ArrowLeft")
            await expect(rows.nth(2)).to_be_hidden()
            await page.keyboard.press("ArrowRight")
            await expect(rows.nth(2)).to_be_visible()
            await page.keyboard.press("Enter")
            panel = page.locator("#span-panel")
            await expect(panel.get_by_role("heading", name="Checkout.place")).to_be_visible()
            assert "?span=" in page.url
            await page.keyboard.press("Escape")
            await expect(panel).to_be_hidden()
            await expect(rows.nth(1)).to_be_focused()
            assert complaints == []

    async def test_zoom_shows_the_part_that_was_chosen(self, front: Front, browser: Browser):
        """Zoomed in, the ticks say another stretch of time and bars out of sight are not drawn; 0 shows all again."""
        async with looking(browser) as (page, _):
            await page.goto(front.address(f"/traces/{TRACE.hex()}"))
            await settled(page)
            last = page.locator("[data-tick]").last
            whole = await last.inner_text()
            box = await page.locator(".minimap").bounding_box()
            assert box is not None
            await page.mouse.move(box["x"] + 2, box["y"] + 20)
            await page.mouse.down()
            await page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 20)
            await page.mouse.up()
            assert await last.inner_text() != whole
            hidden = page.locator("tr[data-span]").last.locator("rect.all")
            await expect(hidden).to_have_attribute("width", "0")
            await page.get_by_role("button", name="All", exact=True).click()
            await expect(last).to_have_text(whole)

    async def test_a_dot_leads_to_its_trace(self, front: Front, browser: Browser):
        """The plot of durations is a way in."""
        async with looking(browser) as (page, _):
            await page.goto(front.address("/traces?span=1h"))
            await settled(page)
            dot = page.locator("circle.dot-at").first
            href = await dot.get_attribute("data-href")
            await dot.click(force=True)
            await page.wait_for_url(f"**{href}")
            await expect(page.locator("h1")).to_have_text("POST /checkout")

    async def test_a_long_trace_stays_usable_on_a_phone(self, front: Front, browser: Browser):
        """A thousand spans: the rest comes when it is asked for, the panel opens over the page, nothing sticks out."""
        spans = [span(1, 0, 0, 10 * SECOND), *(span(n, 1, n * 1000, 500) for n in range(2, 1002))]
        path = shows(front, spans)
        async with looking(browser, PHONE) as (page, complaints):
            await page.goto(front.address(path))
            await settled(page)
            await page.get_by_role("button", name="601 more spans").click()
            await expect(page.locator("tr[data-span]")).to_have_count(2 * DRAWN)
            await page.locator("tr[data-span]").nth(3).click()
            await expect(page.locator("#span-panel")).to_be_visible()
            assert await fits(page)
            assert complaints == []
