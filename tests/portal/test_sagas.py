"""Sagas in the portal: found, drawn on a line of time, and acted on by those who may."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.async_api import Browser, expect
from tests.portal.conftest import looking, needs_chromium, settled
from tests.portal.front import Front
from tests.portal.visitor import Visitor
from tests.portal.work import ASKS, OUTLINES, SAGA, STUCK, plant

from seamline.portal.pages.sagas import steps_of, waits_of


@pytest.fixture(autouse=True)
def planted_work(front: Front) -> None:
    plant(front.admin)


def saga(*journal: dict[str, Any], **more: Any) -> dict[str, Any]:
    began = datetime.fromtimestamp(1_000, UTC).isoformat()
    return {"started": began, "ended": began, "journal": list(journal), "trouble": [], "waiting": [], **more}


def entry(kind: str, at_ms: int, took_ms: int) -> dict[str, Any]:
    return {"place": "1", "kind": kind, "name": "n", "at_ms": at_ms, "took_ms": took_ms, "outcome": "ok"}


def test_steps_stand_where_they_were_in_time():
    """A step ends when its entry was written, a wait begins with what was before it, and the line is true to scale."""
    steps, true = steps_of(
        saga(entry("step", 1_000_400, 400), entry("signal", 1_000_700, 0), entry("undo", 1_001_000, 200)), 2_000_000
    )
    assert true
    assert [(each.x, each.width, each.tone) for each in steps] == [
        (0.0, 400.0, "step"), (400.0, 300.0, "wait"), (800.0, 200.0, "undo"),
    ]  # fmt: skip


def test_a_long_wait_does_not_hide_the_steps():
    """A week of waiting is drawn shorter, says so, and leaves every step wide enough to be seen, in order."""
    week = 7 * 86_400_000
    steps, true = steps_of(
        saga(entry("step", 1_000_020, 20), entry("sleep", 1_000_020 + week, 0), entry("step", 1_000_050 + week, 30)), 0
    )
    assert not true
    assert [each.x for each in steps] == sorted(each.x for each in steps)
    assert min(each.width for each in steps) > 50
    assert steps[-1].x + steps[-1].width == pytest.approx(1000, abs=0.1)


def test_what_is_under_way_reaches_until_now():
    """An open wait and a failing step are drawn to the present; clocks that went back break nothing."""
    steps, _ = steps_of(saga(ended=None, trouble=["ship: gone"], waiting=["approval fraud"]), 1_005_000)
    assert [(each.kind, each.open, each.ended_ms - each.began_ms) for each in steps] == [
        ("trouble", True, 5000), ("wait", True, 5000),
    ]  # fmt: skip
    steps, _ = steps_of(saga(entry("step", 900_000, 10), entry("sleep", 800_000, 0)), 0)
    assert all(each.width >= 0 for each in steps)


def test_what_a_person_can_answer_is_read_from_what_it_waits_for():
    """Approvals and signals with names of several words, with and without an end; timers are nobody's to answer."""
    waiting = ["approval fraud check until 2027-01-01 10:00:00 UTC", "signal paid", "sleep 1 day", "event OrderPlaced"]
    assert waits_of(waiting) == [("approval", "fraud check"), ("signal", "paid")]


async def test_the_list_goes_on_behind_its_last(front: Front):
    """Pages of fifty, the newest first, none twice."""
    visitor, shown = Visitor(front), list[str]()
    first = (await visitor.get("/sagas")).text
    second = (await visitor.get(f"/sagas?cursor={sorted((o['id'] for o in OUTLINES), reverse=True)[49]}")).text
    for each in sorted((o["id"] for o in OUTLINES), reverse=True):
        assert (f'href="/sagas/{each}"' in first) != (f'href="/sagas/{each}"' in second)
        shown.append(each)
    assert len(shown) == len(OUTLINES)


@pytest.mark.parametrize(
    ("path", "fields", "operation", "arguments"),
    [
        ("retry", {}, "retry", {"id": STUCK}),
        ("retry", {"skip": "2"}, "retry", {"id": STUCK, "skip": "2"}),
        ("cancel", {"reason": "asked for"}, "cancel", {"id": STUCK, "reason": "asked for"}),
        ("signal", {"name": "paid", "value": '{"a": 1}'}, "signal", {"id": STUCK, "name": "paid", "value": '{"a": 1}'}),
        ("approve", {"name": "fraud", "approved": "no"}, "approve", {"id": STUCK, "name": "fraud", "by": "session 2",
        "comment": "", "approved": False}),
    ],
)  # fmt: skip
async def test_acts_reach_the_supervisor_in_the_visitors_name(
    front: Front, path: str, fields: dict[str, str], operation: str, arguments: dict[str, Any]
):
    """Each act asks for exactly that, of that saga, as who is signed in; a viewer is refused and nothing asked."""
    refused, error = await Visitor(front, "viewer").act(f"/sagas/{STUCK}/{path}", module="checkout", **fields)
    assert (refused, error["code"]) == ("refused", "SL6602")
    assert front.admin.asked == []
    done, _ = await Visitor(front, "operator").act(f"/sagas/{STUCK}/{path}", module="checkout", **fields)
    assert done == "done"
    ((op, who, asked),) = front.admin.asked
    assert (op, who, asked["module"], asked["operation"]) == ("sagas", "session 2", "checkout", operation)
    assert asked["arguments"] == arguments


async def test_what_makes_no_sense_is_not_sent(front: Front):
    """Text that is no JSON, and a saga that nobody has, are told."""
    visitor = Visitor(front)
    assert (await visitor.act(f"/sagas/{ASKS}/signal", name="paid", value="{yes"))[1]["code"] == "SL6604"
    assert front.admin.asked == []
    assert (await visitor.act("/sagas/none/retry"))[1]["code"] == "SL6603"
    assert "does not wait" in (await visitor.act(f"/sagas/{ASKS}/signal", name="unknown"))[1]["text"]


@pytest.mark.usefixtures("front")
class TestInABrowser:
    pytestmark = needs_chromium

    async def test_a_person_approves(self, front: Front, browser: Browser):
        """What is typed survives the page's own renewal, and the answer goes out with the button that was pressed."""
        async with looking(browser) as (page, complaints):
            await page.goto(front.address(f"/sagas/{ASKS}", "operator"))
            await settled(page)
            await page.locator(".gantt summary").first.click()
            await page.get_by_label("Comment").fill("looks fine")
            before = await page.locator(".figures").inner_text()
            await expect(page.locator(".figures")).not_to_have_text(before, use_inner_text=True)
            assert await page.locator(".gantt details").first.get_attribute("open") is not None
            await page.get_by_role("button", name="Approve").click()
            await expect(page.get_by_text("It was approved.")).to_be_visible()
            (asked,) = [each for _, _, each in front.admin.asked if each.get("operation") == "approve"]
            assert (asked["arguments"]["comment"], asked["arguments"]["approved"]) == ("looks fine", True)
            assert complaints == []

    async def test_a_viewer_has_no_buttons(self, front: Front, browser: Browser):
        """A viewer reads why it is stuck, and finds nothing to press."""
        async with looking(browser) as (page, _):
            await page.goto(front.address(f"/sagas/{STUCK}", "viewer"))
            await settled(page)
            await expect(page.get_by_role("alert").filter(has_text="It is stuck")).to_be_visible()
            assert await page.locator("main form[data-act]").count() == 0
            await page.goto(front.address(f"/sagas/{SAGA}", "admin"))
            await settled(page)
            assert await page.get_by_role("button", name="Cancel", exact=True).count() == 0
