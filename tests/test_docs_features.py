"""The page on features is true: its application is written down, checked, and tested as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.pages import read_page, run_module, run_test, write_files

from seamline.models import features
from seamline.models.features import Feature, FeatureSet, FeatureTable, errors, keep
from seamline.models.features.definition import ROWS_MAX

PAGE = read_page("features.md")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The files of the page."""
    assert write_files(PAGE, tmp_path) == 5
    return tmp_path


def test_the_application_passes_the_checks_and_its_test(shop: Path):
    """``seamline check`` finds nothing, and what the page says of features is so."""
    assert "nothing found" in run_module(shop, "seamline.cli", "check")
    said = run_test(PAGE, shop)
    assert "2 passed" in said, said


def test_every_feature_and_question_is_on_the_page():
    """By name, and no others."""
    made = {name for name in features.__all__ if name[0].islower() and name != "keep"}
    assert set(re.findall(r"^\| `(\w+)\(stream", PAGE, re.MULTILINE)) == made
    assert Feature.__name__ in features.__all__
    for owner, names in ((FeatureTable, ("now", "at", "stats", "forget")), (FeatureSet, ("of_history",))):
        for name in names:
            assert hasattr(owner, name)
            assert f"{name}(" in PAGE


def test_limits_and_codes_are_those_of_the_code():
    """How long an event is kept, how many are looked at, what can be wrong."""
    assert f"newest {ROWS_MAX:,} events" in PAGE
    assert (keep.__kwdefaults__ or {})["keep_s"] == 90 * 86_400
    assert f"`wait_s` ({(keep.__kwdefaults__ or {})['wait_s']} s)" in PAGE
    codes = {each.code for each in vars(errors).values() if getattr(each, "code", "").startswith("SL776")}
    assert set(re.findall(r"^\| (SL77\d{2}) ", PAGE, re.MULTILINE)) == codes - {"SL7760"}
