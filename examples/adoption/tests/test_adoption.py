"""An existing app joins unchanged; then one function of it is cut out, and nobody outside can tell."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import pytest
from seams.moderation import Moderation

from seamline import PermissionDenied
from seamline.testing.app import TopologyApp

APP = Path(__file__).resolve().parents[1]
STORY = APP.parents[1] / "docs" / "adopt.md"
GOOD = {"author": "Ada", "stars": 4, "text": "It does what it says."}


def changes() -> list[str]:
    """The lines that cutting the seam added and removed in the app's file."""
    before = (APP / "reviews_before/main.py").read_text().splitlines()
    after = (APP / "reviews_after/main.py").read_text().splitlines()
    lines = list(difflib.unified_diff(before, after, lineterm="", n=0))[2:]
    return [line for line in lines if line[0] in "+-" and line[1:].strip()]


def test_cutting_the_seam_changes_a_handful_of_lines():
    """Fewer than fifteen, counting what was added and what was removed."""
    assert 0 < len(changes()) < 15


def test_the_story_shows_the_real_change():
    """The diff in the documentation is the diff between the two files."""
    shown = re.search(r"```diff\n(.*?)```", STORY.read_text(), re.DOTALL)
    assert shown is not None
    lines = [line for line in shown.group(1).splitlines() if line[:1] in {"+", "-"} and line[1:].strip()]
    assert lines == changes()


async def test_both_behave_the_same(topology_app: TopologyApp):
    """The same requests to the app before and after have the same answers, in every topology."""
    http = topology_app.http

    async def told(at: str) -> list[tuple[int, str | None, str]]:
        thing = f"{at}-{topology_app.topology}"
        answers = [
            await http.post(f"/{at}/products/{thing}/reviews", json=GOOD),
            await http.post(f"/{at}/products/{thing}/reviews", json={**GOOD, "text": "Look: www.example.com"}),
            await http.post(f"/{at}/products/{thing}/reviews", json={**GOOD, "stars": 0}),
            await http.post(f"/{at}/embed/{thing}", form={"author": "Bo", "stars": "5", "text": "Small & good."}),
            await http.post(f"/{at}/embed/{thing}", form={"author": "Bo", "stars": "5", "text": "You scum"}),
            await http.get(f"/{at}/products/{thing}/reviews"),
            await http.get(f"/{at}/products/{thing}/rating"),
            await http.get(f"/{at}/embed/{thing}"),
            await http.get(f"/{at}/zeppelin"),
        ]
        return [(a.status, a.header("location"), a.text.replace(thing, "thing")) for a in answers]

    def neutral(answers: list[tuple[int, str | None, str]], at: str) -> list[tuple[int, str | None, str]]:
        return [
            (s, where and where.replace(f"{at}-{topology_app.topology}", "thing"), text) for s, where, text in answers
        ]

    before, after = neutral(await told("before"), "before"), neutral(await told("after"), "after")
    assert before == after
    assert [status for status, _, _ in before] == [201, 202, 422, 303, 303, 200, 200, 200, 404]


async def test_the_seam_is_real(topology_app: TopologyApp):
    """When moderation does not answer, the app that calls it fails, and the one that holds it does not."""
    http = topology_app.http
    with topology_app.inject(Moderation.assess, error="unavailable"):
        before = await http.post("/before/products/seam/reviews", json=GOOD)
        after = await http.post("/after/products/seam/reviews", json=GOOD)
    assert before.status == 201
    assert after.status >= 500


async def test_only_the_app_that_was_cut_may_ask(topology_app: TopologyApp):
    """A mounted app has an identity, and its calls are permitted or refused by policy."""
    verdict = await topology_app.stub(Moderation, caller="after").assess("You scum")
    assert (verdict.held, verdict.reasons) == (True, ("it is rude",))
    with pytest.raises(PermissionDenied):
        await topology_app.stub(Moderation, caller="before").assess("You scum")
