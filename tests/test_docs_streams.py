"""The page on streams is true: its application is written down, checked, and tested as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.pages import read_page, run_module, run_test, write_files

from seamline.events.streams import errors, service, tables, view
from seamline.events.streams.aggregates import Aggregate

PAGE = read_page("streams.md")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The files of the page."""
    assert write_files(PAGE, tmp_path) == 7
    return tmp_path


def test_the_application_passes_the_checks(shop: Path):
    """``seamline check`` finds nothing."""
    assert "nothing found" in run_module(shop, "seamline.cli", "check")


def test_the_test_of_the_page_passes(shop: Path):
    """In one process and in three."""
    said = run_test(PAGE, shop)
    assert "2 passed" in said, said


def test_the_limits_are_those_of_the_page():
    """Rows, bytes and seconds of a query, what is kept aside, and every error by its code."""
    assert f"at most {service.TIME_MAX_S:g} seconds" in PAGE
    assert f"{service.ROWS_MAX:,} rows and {service.BYTES_MAX // 2**20} MB" in PAGE
    assert f"newest {tables.PUT_ASIDE_KEPT:,} of each view" in PAGE
    assert (tables.STATUS, tables.aside.name) == ("stream_status", "seamline_stream_aside")
    codes = {each.code for each in vars(errors).values() if getattr(each, "code", "").startswith("SL74")}
    assert set(re.findall(r"^\| (SL74\d{2}) ", PAGE, re.MULTILINE)) == codes - {"SL7400"}
    defaults = view.materialise.__kwdefaults__ or {}
    assert (defaults["idle_s"], defaults["ahead_s"], defaults["keep_s"]) == (15, 60, 7 * 86_400)


def test_every_aggregate_is_on_the_page():
    from seamline.events import streams

    made = {
        name
        for name in streams.__all__
        if name in {"avg", "count", "distinct", "fold", "max_", "min_", "sum_", "top_k"}
    }
    assert len(made) == 8
    assert all(f"`{name}" in PAGE for name in made)
    assert issubclass(streams.Aggregate, Aggregate)
