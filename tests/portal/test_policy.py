"""Policy and audit in the portal: who may call what, by which rule, and what was decided, unaltered."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect
from tests.portal.conftest import looking, needs_chromium, settled
from tests.portal.front import Front
from tests.portal.visitor import Visitor
from tests.portal.work import plant, plant_audit

from seamline.kernel.audit.search import Place, Query, entries, latest, place_of
from seamline.kernel.settings import Settings
from seamline.portal.app import Portal


@pytest.fixture(autouse=True)
def planted_work(front: Front, shop: Path) -> None:
    plant(front.admin)
    plant_audit(shop)


async def test_the_matrix_says_who_may_call_what(front: Front):
    """Each permitted pair is a cell with how much of it, on conditions where it is so; the rest is empty."""
    text = (await Visitor(front, "viewer").get("/policy")).text
    assert 'aria-label="frontend at catalog: 2 of 2 methods"' in text
    assert 'aria-label="checkout at payments: 2 of 2 methods, 1 on conditions"' in text
    assert 'aria-label="gateway at frontend: http"' in text
    assert "payments at catalog" not in text


async def test_a_request_is_put_to_the_test(front: Front):
    """Exactly what was filled in is asked, by anybody who may look, and a refusal is a sentence."""
    visitor = Visitor(front, "viewer")
    path = (
        "/policy?view=test&caller=checkout&call=Payments.charge&user=bo&roles=lead,support&args=%7B%22cents%22%3A1%7D"
    )
    text = (await visitor.get(path)).text
    assert ">Allowed<" in text
    asked = next(each for _, _, each in front.admin.asked if each["operation"] == "explain")["arguments"]
    assert asked == {
        "caller": "checkout", "call": "Payments.charge",
        "request": {"user": "bo", "roles": ["lead", "support"], "args": {"cents": 1}},
    }  # fmt: skip
    assert ">Denied<" in (await visitor.get("/policy?view=test&caller=ads&call=Payments.charge")).text
    assert "there is no method" in (await visitor.get("/policy?view=test&caller=ads&call=Payments.steal")).text


async def test_what_was_never_used_is_told(front: Front):
    """Permitted calls that nobody was seen to make, the narrowed policy, and what the policy to come changes."""
    text = (await Visitor(front).get("/policy?view=used")).text
    unused = text.partition('id="h-unused"')[2].partition("</section>")[0]
    assert "Payments.refund" in unused
    assert "Catalog.list" not in unused
    seen = next(each for _, _, each in front.admin.asked if each.get("operation") == "narrow")["arguments"]["seen"]
    assert ["gateway", "frontend", "http"] in seen


async def test_only_operators_put_a_policy_in_force(front: Front):
    """A viewer has no button and is refused."""
    assert "/policy/reload" not in (await Visitor(front, "viewer").get("/policy")).text
    assert (await Visitor(front, "viewer").act("/policy/reload"))[1]["code"] == "SL6602"
    front.admin.asked.clear()
    assert (await Visitor(front, "operator").act("/policy/reload"))[0] == "done"
    assert front.admin.asked[0][0] == "policy"


async def test_the_audit_is_leafed_through_without_gap(front: Front):
    """The newest first, a hundred to a page, all of them once, and found by what is in them."""
    visitor, folder = Visitor(front, "operator"), front.portal.settings.data_folder / "audit"
    everything = sorted(entries(folder, Query()), key=place_of, reverse=True)
    found, before = list[object](), None
    while page := latest(folder, Query(), 100, before):
        found += page
        before = place_of(page[-1])
    assert found == everything
    text = (await visitor.get("/audit")).text
    assert text.count('class="record one"') == 100
    older = text.partition('rel="next"')[0].rpartition('href="')[2].partition('"')[0].replace("&amp;", "&")
    assert (await visitor.get(older)).text.count('class="record one"') == 100
    assert (await visitor.get("/audit?principal=session+17")).text.count('class="record one"') == 1
    assert "No line fits" in (await visitor.get("/audit?text=nowhere")).text


def test_old_files_are_left_alone(tmp_path: Path):
    """What is asked of the last minutes does not read the files of last year."""
    for number, day in enumerate(("2026-02-02", "2026-02-01", "2026-01-01")):
        line = {"number": 3 - number, "time": f"{day}T00:00:00.000Z", "kind": "admin"}
        name = "supervisor.jsonl" + (f".{number}" if number else "")
        (tmp_path / name).write_text(json.dumps(line) + "\n")
    (tmp_path / "supervisor.jsonl.2").unlink()
    (tmp_path / "supervisor.jsonl.2").mkdir()  # to read it would fail
    found = latest(tmp_path, Query(since="2026-02-01T12:00:00.000Z"), 10)
    assert [each["number"] for each in found] == [3]


async def test_lines_are_for_operators_and_chains_for_all(front: Front):
    """A viewer sees whether the chains are whole, and none of the lines, nor the export."""
    visitor = Visitor(front, "viewer")
    text = (await visitor.get("/audit")).text
    assert ">whole<" in text
    assert "session 17" not in text
    assert (await visitor.get("/audit/export")).status == 403
    assert (await visitor.get("/live/audit")).status == 403


async def test_an_altered_line_shows(front: Front, shop: Path, tmp_path: Path):
    """One digit changed in one line: its log is called altered, and the line is named."""
    folder = Settings.load(shop, {}).data_folder
    (tmp_path / "seamline.toml").write_text((shop / "seamline.toml").read_text())
    settings = Settings.load(tmp_path, {})
    shutil.copytree(folder / "audit", settings.data_folder / "audit")
    log = settings.data_folder / "audit" / "supervisor.jsonl"
    log.write_text(log.read_text().replace("session 17", "session 18", 1))
    portal = front.portal
    front.show(Portal(portal.reader, portal.observatory, portal.admin, settings, portal.clock))
    text = (await Visitor(front, "viewer").get("/audit")).text
    assert ">altered<" in text
    assert "supervisor.jsonl:18: changed" in text


async def test_the_export_is_what_other_systems_read(front: Front):
    """One event of OCSF a line, or the lines as they stand, of what the filter lets through."""
    visitor = Visitor(front, "operator")
    events = [json.loads(line) for line in (await visitor.get("/audit/export?decision=deny")).text.splitlines()]
    assert len(events) == 51
    assert {each["metadata"]["version"] for each in events} == {"1.3.0"}
    plain = [json.loads(line) for line in (await visitor.get("/audit/export?form=lines")).text.splitlines()]
    assert len(plain) == 251
    assert "hash" in plain[0]


def test_a_place_is_behind_those_before_it():
    """Lines of the same millisecond are told apart by log and number."""
    places = [Place("t", "a", 1), Place("t", "a", 2), Place("t", "b", 1), Place("u", "a", 1)]
    assert sorted(places, reverse=True)[::-1] == places


@pytest.mark.usefixtures("front")
class TestInABrowser:
    pytestmark = needs_chromium

    async def test_the_export_is_a_file(self, front: Front, browser: Browser):
        """The browser keeps what the filter lets through."""
        async with looking(browser) as (page, complaints):
            await page.goto(front.address("/audit?decision=deny", "operator"))
            await settled(page)
            async with page.expect_download() as waited:
                await page.get_by_role("button", name="Export as OCSF").click()
            file = await (await waited.value).path()
            assert len((await asyncio.to_thread(Path(file).read_text)).splitlines()) == 51
            assert complaints == []

    async def test_a_cell_leads_to_its_calls_and_a_call_to_its_rule(self, front: Front, browser: Browser):
        """From the matrix to why a call is allowed, in two steps."""
        async with looking(browser) as (page, complaints):
            await page.goto(front.address("/policy"))
            await settled(page)
            await page.get_by_label("checkout at payments").click()
            await page.get_by_role("row", name="Payments.charge").get_by_role("link", name="why").click()
            await expect(page.get_by_role("heading", name="Allowed")).to_be_visible()
            assert complaints == []
