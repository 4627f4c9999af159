"""Events in the portal: browsed, replayed, and what could not be handled settled by those who may."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect
from tests.portal.conftest import looking, needs_chromium, settled
from tests.portal.front import Front
from tests.portal.planted import TRACE
from tests.portal.visitor import Visitor
from tests.portal.work import plant


@pytest.fixture(autouse=True)
def planted_work(front: Front) -> None:
    plant(front.admin)


def offsets(text: str) -> list[int]:
    return [int(part.partition("<")[0]) for part in text.split('class="offset num">')[1:]]


async def test_a_topic_is_leafed_through(front: Front):
    """The newest first, older pages behind it without a gap, from an offset, and of one type and key."""
    visitor = Visitor(front)
    first = (await visitor.get("/events/topics/checkout")).text
    assert offsets(first) == list(range(240, 190, -1))
    assert "before=191" in first
    assert offsets((await visitor.get("/events/topics/checkout?before=191")).text) == list(range(190, 140, -1))
    assert offsets((await visitor.get("/events/topics/checkout?after=7")).text) == list(range(56, 6, -1))
    found = offsets((await visitor.get("/events/topics/checkout?key=o-3&type=OrderUndone")).text)
    assert found == [each for each in range(240, 0, -1) if each % 5 == 3 and each % 3 == 0]
    assert f'href="/traces/{TRACE.hex()}"' in first


async def test_lag_is_drawn_over_time(front: Front):
    """What was measured of a group stands on its page and in the overview."""
    visitor = Visitor(front)
    assert "events behind" in (await visitor.get("/events/groups/inventory/inventory.on_order")).text
    assert (await visitor.get("/events")).text.count('class="spark"') >= 1


async def test_dead_letters_are_settled_one_or_many(front: Front):
    """Each that is ticked is asked for by module and number; what stays is told with its reason."""
    visitor = Visitor(front, "operator")
    word, told = await visitor.act("/events/dead/retry", ("letter", "inventory 1"), ("letter", "inventory 2"))
    assert word == "done"
    assert told["text"].startswith("1 handled, 1 stay: 2: ")
    asked = [(each["module"], each["operation"], each["arguments"]) for _, _, each in front.admin.asked]
    assert asked == [("inventory", "dead retry", {"number": 1}), ("inventory", "dead retry", {"number": 2})]
    front.admin.asked.clear()
    await visitor.act("/events/dead/drop", group="inventory.on_order", module="inventory")
    assert front.admin.asked[0][2]["arguments"] == {"group": "inventory.on_order"}


@pytest.mark.parametrize("path", ["/events/dead/retry", "/events/dead/drop", "/events/replay"])
async def test_a_viewer_settles_nothing(front: Front, path: str):
    """Refused by the portal before anybody is asked."""
    fields = {"letter": "inventory 1", "module": "inventory", "group": "g", "where": "earliest"}
    assert (await Visitor(front, "viewer").act(path, **fields))[1]["code"] == "SL6602"
    assert front.admin.asked == []


@pytest.mark.parametrize(
    ("where", "start", "asked"),
    [
        ("earliest", "", "earliest"), ("latest", "12", "latest"), ("start", "1200", "1200"),
        ("start", "2026-03-01T08:00", "2026-03-01T08:00:00+00:00"), ("start", "yesterday", ""), ("start", "", ""),
    ],
)  # fmt: skip
async def test_a_replay_begins_where_it_was_said(front: Front, where: str, start: str, asked: str):
    """An offset, a moment in UTC, either end; what is no place in a topic asks for nothing."""
    fields = {"module": "inventory", "group": "inventory.on_order", "where": where, "start": start}
    word, _ = await Visitor(front).act("/events/replay", **fields)
    if asked:
        assert front.admin.asked[0][2]["arguments"] == {"group": "inventory.on_order", "start": asked}
    else:
        assert word in {"trouble", "refused"}
        assert front.admin.asked == []


async def test_ticks_that_name_nothing_settle_nothing(front: Front):
    """No letter, a number that is none, a group without its module."""
    visitor = Visitor(front)
    for fields in ({}, {"letter": "inventory x"}, {"letter": "inventory"}, {"group": "g"}):
        assert (await visitor.act("/events/dead/drop", **fields))[1]["code"] == "SL6604"
    assert front.admin.asked == []


@pytest.mark.usefixtures("front")
class TestInABrowser:
    pytestmark = needs_chromium

    async def test_many_are_discarded_after_a_question(self, front: Front, browser: Browser):
        """Nothing happens until something is ticked, and nothing until the question is answered."""
        async with looking(browser) as (page, complaints):
            await page.goto(front.address("/events/dead", "operator"))
            await settled(page)
            discard = page.get_by_role("button", name="Discard")
            await expect(discard).to_be_disabled()
            await page.get_by_label("All on this page").check()
            await expect(page.locator("#letters-count")).to_have_text("3 chosen")
            await discard.click()
            dialog = page.locator("#sl-confirm")
            await expect(dialog).to_contain_text("Discard 3?")
            await dialog.get_by_role("button", name="Cancel").click()
            assert not any(each.get("operation") == "dead drop" for _, _, each in front.admin.asked)
            await discard.click()
            await dialog.get_by_role("button", name="Discard").click()
            await expect(page.locator("#sl-progress")).to_contain_text("3 dropped.")
            asked = [each["arguments"] for _, _, each in front.admin.asked if each.get("operation") == "dead drop"]
            assert asked == [{"number": 1}, {"number": 2}, {"number": 3}]
            assert complaints == []

    async def test_new_events_come_by_themselves(self, front: Front, browser: Browser):
        """A topic's page shows what is published while it is open, and keeps open what was opened."""
        async with looking(browser) as (page, _):
            await page.goto(front.address("/events/topics/checkout?type=OrderUndone"))
            await settled(page)
            await page.locator(".records details").first.locator("summary").click()
            answer = front.admin.answers["events"]
            newer = {"offset": 999, "partition": 0, "id": "x", "type": "OrderUndone", "version": 1, "key": "k"}
            newer |= {"time": "2026-01-01T00:00:00+00:00", "trace": "", "headers": {}, "data": "{}"}

            def later(asked: dict[str, object]) -> dict[str, object]:
                found = answer(asked)
                if asked["operation"] == "tail":
                    found["answers"][0]["result"]["records"].append(newer)
                return found

            front.admin.answers["events"] = later
            await expect(page.locator(".records .offset").first).to_have_text("999")
