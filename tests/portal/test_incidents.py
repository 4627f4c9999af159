"""Incidents in the portal: evidence that can be checked, abstention said, acts by those who may."""

from __future__ import annotations

import msgspec
import pytest
from playwright.async_api import Browser, expect
from tests.portal.conftest import looking, needs_chromium, settled
from tests.portal.front import FakeIncidents, Front
from tests.portal.planted import incident
from tests.portal.visitor import Visitor

from seamline.observe.incidents import Entry, Evidence, Incident, Note
from seamline.portal.app import Portal


class OneIncident:
    """A reader that knows one incident, and for the rest is another reader."""

    def __init__(self, reader: object, found: Incident) -> None:
        self._reader = reader
        self._found = found

    def __getattr__(self, name: str) -> object:
        return getattr(self._reader, name)

    def incident(self, name: str) -> Incident | None:
        return self._found if name == self._found.id else None


def shows(front: Front, found: Incident) -> None:
    portal = front.portal
    reader = OneIncident(portal.reader, found)
    front.show(Portal(reader, portal.observatory, portal.admin, portal.settings, portal.clock))  # pyright: ignore[reportArgumentType]


async def test_claims_lead_to_their_evidence_and_evidence_to_what_can_be_checked(front: Front):
    """Each claim cites evidence that stands on the page, and links of the portal alone are links."""
    text = (await Visitor(front).get("/incidents/INC-7")).text
    assert 'href="#e1"' in text
    assert 'id="e1"' in text
    assert "21 ms" in text
    assert "188 ms" in text


async def test_an_abstention_is_said_plainly(front: Front):
    """Where nothing is suspected the page says so, and why."""
    now_ns = front.portal.now_ns()
    base = incident(now_ns)
    base.suspects, base.abstained, base.reason = [], True, "too few calls to tell"
    shows(front, base)
    text = (await Visitor(front).get("/incidents/INC-7")).text
    assert "No cause is named." in text
    assert "too few calls to tell" in text


async def test_the_timeline_has_each_thing_once(front: Front):
    """What the observer saw, what was changed and what people wrote stand in the order of time, none of them twice."""
    base = incident(front.portal.now_ns())
    mark = base.marks[0]
    base.timeline.append(Entry(mark.at_ns, "mark", f"{mark.kind}: {mark.title}"))
    base.notes.append(Note(base.began_ns + 60_000_000_000, "ada", "rolled back"))
    shows(front, base)
    text = (await Visitor(front).get("/incidents/INC-7")).text.partition('class="timeline"')[2].partition("</ol>")[0]
    assert [part.partition('"')[0] for part in text.split('<li class="was-')[1:]] == [
        "mark",
        "began",
        "explained",
        "note",
    ]


@pytest.mark.parametrize("link", ["javascript:alert(1)", "//elsewhere.example/x", "https://elsewhere.example"])
async def test_a_link_to_elsewhere_is_no_link(front: Front, link: str):
    """Evidence may quote what others wrote: only paths of the portal can be followed."""
    base = incident(front.portal.now_ns())
    base.suspects[0] = msgspec.structs.replace(base.suspects[0], evidence=[Evidence("log", "look here", link=link)])
    shows(front, base)
    assert link not in (await Visitor(front).get("/incidents/INC-7")).text


@pytest.mark.parametrize(("act", "fields"), [("acknowledge", {}), ("note", {"text": "rolled back"}), ("close", {})])
async def test_acts_are_permitted_by_the_supervisor_first(front: Front, act: str, fields: dict[str, str]):
    """A viewer is refused; an operator's act is asked of the supervisor, which records it, and then done once."""
    kept = front.portal.observatory.incidents  # pyright: ignore[reportOptionalMemberAccess]
    assert isinstance(kept, FakeIncidents)
    assert (await Visitor(front, "viewer").act(f"/incidents/INC-7/{act}", **fields))[1]["code"] == "SL6602"
    assert (front.admin.asked, kept.done) == ([], [])
    visitor = Visitor(front, "operator")
    assert (await visitor.act(f"/incidents/INC-7/{act}", **fields))[0] == "done"
    assert front.admin.asked == [("incident", "session 2", {"operation": act, "incident": "INC-7"})]
    assert kept.done == [(act, "INC-7", "session 2", *fields.values())]
    assert (await visitor.act(f"/incidents/INC-8/{act}", **fields))[1]["code"] == "SL6603"


@pytest.mark.usefixtures("front")
class TestInABrowser:
    pytestmark = needs_chromium

    async def test_the_page_is_brought_up_to_date(self, front: Front, browser: Browser):
        """What the observer tells is drawn without a reload, and its chart with the marks is there."""
        base = incident(front.portal.now_ns())
        shows(front, base)
        async with looking(browser) as (page, complaints):
            await page.goto(front.address("/incidents/INC-7"))
            await settled(page)
            await expect(page.locator(".plot canvas").first).to_be_visible()
            base.acknowledged_by = "ada"
            front.portal.observatory.live.tell("incidents", base)  # pyright: ignore[reportOptionalMemberAccess]
            await expect(page.locator(".incident-bar")).to_contain_text("taken by ada")
            assert complaints == []
