"""The page on the portal is true: its pages, keys, sizes and thresholds are the code's, its permit is one."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from tests.pages import read_page

from seamline.mesh.policy import Policy
from seamline.observe.windows import Flow
from seamline.portal import app
from seamline.portal.now import NOW_S, Course

PAGE = read_page("portal.md")
SAID = re.sub(r"\s+", " ", PAGE)
STATIC = Path(app.__file__).parent / "static"


def packed_kb(*names: str) -> float:
    return sum(len(gzip.compress((STATIC / name).read_bytes(), 9)) for name in names) / 1000


def test_every_page_stands_there_with_its_keys():
    """In the order of the navigation."""
    told = re.findall(r"^\| (\w+) \| `(/\w*)` \| `g (\w)` \|", PAGE, re.MULTILINE)
    assert told == [(each.title, each.path, each.key) for each in app.found_pages()]


def test_the_permit_of_the_page_permits_what_it_says():
    """And no more."""
    (text,) = re.findall(r"^```cedar\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    contracts = {"Catalog": ("catalog", ["search", "product", "add"])}
    policy = Policy.from_text(text, modules={"catalog": {}, "cart": {}}, contracts=contracts)
    assert policy.may("portal", "catalog", "Catalog", "search")
    assert policy.may("portal", "catalog", "Catalog", "product")
    assert not policy.may("portal", "catalog", "Catalog", "add")
    assert not policy.may("cart", "catalog", "Catalog", "search")


def test_what_is_loaded_is_as_small_as_it_says():
    """Packed, within a fifth."""
    shell = packed_kb("portal.css", "pages.css", "portal.js", "theme.js", "icons.svg", "vendor/htmx.js")
    charts = packed_kb("vendor/uplot.js", "vendor/uplot.css", "charts.js")
    picture = packed_kb("vendor/cytoscape.js", "vendor/dagre.js", "topology.js")
    told = [int(each) for each in re.findall(r"(\d+) KB", SAID)]
    for said, is_ in zip(told, (shell, charts, picture), strict=True):
        assert abs(said - is_) < 0.2 * said, (said, is_)


def test_when_a_module_needs_a_look_is_as_it_says():
    """Now, two at 1 %, three at 5 %."""

    def state(errors: int, calls: int) -> str:
        return Course(NOW_S, Flow(calls, errors)).state

    assert f"the last {NOW_S:.0f} seconds" in SAID
    assert [state(1, 3), state(2, 200), state(2, 300), state(3, 60), state(3, 61)] == [
        "good", "warn", "good", "bad", "warn",
    ]  # fmt: skip
