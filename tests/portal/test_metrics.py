"""Metrics in the portal: any of them drawn with marks, beside how it was, and in numbers."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from playwright.async_api import Browser, expect
from tests.portal.conftest import looking, needs_chromium, settled
from tests.portal.front import Front
from tests.portal.visitor import Visitor

from seamline.observe.store.query import MetricName, Series
from seamline.portal.pages.metrics import LINES_MAX, Asked, Chart, charts_of, step_of

SECOND = 1_000_000_000


def asked(**more: Any) -> Asked:
    given: dict[str, Any] = {
        "name": "m", "module": "", "caller": "", "method": "", "where": {}, "before": "", "since_ns": 0,
        "until_ns": 100 * SECOND, "step_ns": 10 * SECOND,
    }  # fmt: skip
    return Asked(**given | more)


class Measured:
    """A reader with series that it gives for every time alike."""

    def __init__(self, *series: Series) -> None:
        self.asked: list[tuple[int, int]] = []
        self._series = list(series)

    def metric(self, name: str, **given: Any) -> list[Series]:
        self.asked.append((given["since_ns"], given["until_ns"]))
        return self._series


def series(
    values: list[float | None], kind: Any = "gauge", columns: tuple[str, ...] = ("value",), **more: Any
) -> Series:
    at = [n * 10 * SECOND for n in range(len(values))]
    return Series("m", "ms", at, dict.fromkeys(columns, values), kind=kind, **more)


def drawn(reader: Measured, wanted: Asked, kind: Any = "gauge") -> list[Chart]:
    name = MetricName("m", kind, "ms", [], 1, 0)
    return charts_of(reader, wanted, name)  # pyright: ignore[reportArgumentType]


def test_series_are_called_by_what_tells_them_apart():
    """Only what is not the same in all of them; the largest first, and no more than can be told apart by eye."""
    many = [series([float(n)], module="cart", attributes={"kind": f"k{n}", "same": "x"}) for n in range(20)]
    (chart,) = drawn(Measured(*many), asked())
    assert [each["name"] for each in chart.series][:2] == ["kind=k19", "kind=k18"]
    assert (len(chart.series), chart.left_out) == (LINES_MAX, 8)


def test_percentiles_of_a_histogram_have_a_chart_each():
    """Median, 95th, 99th and the rate, each in its unit."""
    found = series([1.0, None], "histogram", ("p50", "p95", "p99", "rate"))
    charts = drawn(Measured(found), asked(), "histogram")
    assert [(each.id, each.unit) for each in charts] == [("p50", "ms"), ("p95", "ms"), ("p99", "ms"), ("rate", "/s")]
    assert charts[0].series[0]["values"] == [1.0, None]


def test_an_hour_before_is_laid_under_it():
    """The same steps, an hour earlier, of the same series, dashed."""
    reader = Measured(series([1.0, 2.0], module="a"), series([3.0, 4.0, 5.0], module="b"))
    (chart,) = drawn(reader, asked(before="1h", since_ns=7200 * SECOND, until_ns=7300 * SECOND))
    assert reader.asked == [(7200 * SECOND, 7300 * SECOND), (3600 * SECOND, 3700 * SECOND)]
    assert [(each["name"], each["kind"]) for each in chart.series] == [
        ("b", ""), ("b, an hour before", "before"), ("a", ""), ("a, an hour before", "before"),
    ]  # fmt: skip
    assert {len(each["values"]) for each in chart.series} == {len(chart.at_ns)}


@pytest.mark.parametrize(("length_s", "step_s"), [(300, 2), (900, 6), (3600, 30), (86_400, 600), (7 * 86_400, 7200)])
def test_steps_are_those_that_people_count_in(length_s: int, step_s: int):
    """About a hundred and fifty of them, whatever the time."""
    assert step_of(length_s * SECOND) == step_s * SECOND


async def test_every_chart_has_its_marks_and_its_numbers(front: Front):
    """The release stands on each chart, and the table says what the line shows."""
    text = (await Visitor(front).get("/metrics?name=calls&span=15m")).text
    charts = [json.loads(html.unescape(each)) for each in re.findall(r'data-chart="([^"]*)"', text)]
    assert len(charts) == 3
    for chart in charts:
        assert any(mark["kind"] == "release" for mark in chart["marks"])
        assert len(chart["at"]) == len(chart["series"][0]["values"])
    assert max(value or 0 for value in charts[1]["series"][0]["values"]) > 0.05
    assert text.count('<details class="numbers">') == 3


async def test_a_metric_is_narrowed_to_a_module_and_an_attribute(front: Front):
    """One series of five, and nothing at all where nothing fits."""
    visitor = Visitor(front)
    assert (await visitor.get("/metrics?name=shop.cart.size")).text.count("series-") > 4
    assert "series-" not in (await visitor.get("/metrics?name=shop.cart.size&module=payments")).text
    assert "Nothing was measured" in (await visitor.get("/metrics?name=shop.cart.size&where=kind%3Dnone")).text
    assert "Nothing was measured" in (await visitor.get("/metrics?name=none")).text


@pytest.mark.usefixtures("front")
class TestInABrowser:
    pytestmark = needs_chromium

    async def test_a_name_is_found_and_drawn_by_key(self, front: Front, browser: Browser):
        """Typing narrows the catalogue, Enter and Enter again draw it; the fixed link shows the same for ever."""
        async with looking(browser) as (page, complaints):
            await page.goto(front.address("/metrics"))
            await settled(page)
            await page.keyboard.press("/")
            await page.keyboard.type("cart si")
            await expect(page.locator(".catalogue li:visible")).to_have_count(1)
            await page.keyboard.press("Enter")
            await page.keyboard.press("Enter")
            await page.wait_for_url("**name=shop.cart.size*")
            await expect(page.get_by_role("heading", name="shop.cart.size")).to_be_visible()
            await expect(page.locator(".plot canvas")).to_be_visible()
            fixed = await page.locator("[data-copy]").get_attribute("data-copy")
            assert fixed is not None
            assert "from=" in fixed
            await page.goto(front.url + fixed)
            await settled(page)
            await expect(page.locator(".fixed-time")).to_be_visible()
            assert complaints == []
