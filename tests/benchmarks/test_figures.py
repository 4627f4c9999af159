"""The statistics of the benchmarks: a wrong ratio would be believed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from benchmarks import report
from benchmarks.figures import Row, against_budget, compare, percentile, spread
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

ROW_KEYS = ["name", "unit", "value", "peer", "peer_value", "ratio", "rounds", "spread"]


def a_row(name: str = "calls", ratio: float = 2.0) -> Row:
    return Row(name, "calls/s", 200, "peer", 100, ratio, 3, 0.1)


def test_more_is_better_where_the_unit_says_so():
    """Twice the peer's calls per second is a ratio of two."""
    row = compare("calls", "calls/s", "higher", [190, 200, 900], "peer", [95, 100, 105])
    assert (row.value, row.peer_value, row.ratio, row.rounds) == (200, 100, 2, 3)


def test_less_is_better_where_the_unit_says_so():
    """Half the peer's latency is a ratio of two, not of one half."""
    row = compare("latency", "ms", "lower", [1, 2, 3], "peer", [4, 4, 4])
    assert (row.value, row.ratio) == (2, 2)


def test_a_budget_is_met_when_the_ratio_is_above_one():
    row = against_budget("rss", "MB", "lower", [100], 200)
    assert (row.ratio, row.peer) == (2, "budget 200 MB")


def test_spread_is_of_the_rounds_ratios():
    """A machine that slows both sides alike in one round does not widen the spread."""
    steady = compare("calls", "calls/s", "higher", [200, 100, 200], "peer", [100, 50, 100])
    shaken = compare("calls", "calls/s", "higher", [200, 100, 200], "peer", [100, 100, 100])
    assert (steady.spread, shaken.spread) == (0, 0.5)


def test_rounds_that_do_not_pair_are_refused():
    with pytest.raises(ValueError, match="1 rounds of ours beside 2"):
        compare("calls", "calls/s", "higher", [1], "peer", [1, 2])


def test_a_peer_of_nothing_gives_no_ratio():
    """A division by zero is reported as no figure, not as infinity."""
    assert math.isnan(compare("calls", "calls/s", "higher", [1], "peer", [0]).ratio)


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=200), st.floats(0, 1))
def test_a_percentile_is_one_of_the_values_and_grows_with_its_share(values: list[float], share: float):
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered
    assert percentile(ordered, 0) == ordered[0]
    assert percentile(ordered, 1) == ordered[-1]
    assert found <= percentile(ordered, min(1, share + 0.1))


def test_percentiles_by_nearest_rank():
    values = [float(number) for number in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (50, 99)


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=50))
def test_spread_is_nought_only_where_all_agree(values: list[float]):
    assert (spread(values) == 0) == (min(values) == max(values))


def test_the_report_has_exactly_the_agreed_shape(tmp_path: Path):
    report.write([a_row()], tmp_path / "latest.json")
    document = json.loads((tmp_path / "latest.json").read_text())
    assert list(document) == ["machine", "rows"]
    assert list(document["rows"][0]) == ROW_KEYS
    assert document["machine"]["cores"] >= 1


def test_the_report_is_json_even_without_a_ratio(tmp_path: Path):
    """NaN is not JSON: what could not be formed is null."""
    report.write([a_row(ratio=math.nan)], tmp_path / "latest.json")

    def refuse(constant: str) -> float:
        raise AssertionError(constant)

    document = json.loads((tmp_path / "latest.json").read_text(), parse_constant=refuse)
    assert document["rows"][0]["ratio"] is None
    [row] = report.merged([], tmp_path / "latest.json")
    assert math.isnan(row.ratio)


def test_a_run_of_one_row_keeps_the_others(tmp_path: Path):
    path = tmp_path / "latest.json"
    report.write([a_row("first"), a_row("second")], path)
    rows = report.merged([a_row("second", ratio=3), a_row("third")], path)
    assert [(row.name, row.ratio) for row in rows] == [("first", 2), ("second", 3), ("third", 2)]


def test_the_document_takes_the_table_between_its_marks_again_and_again(tmp_path: Path):
    report.write([a_row()], tmp_path / "latest.json")
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for _ in range(2):
        report.document({"calls": "≥ 1"}, page, tmp_path / "latest.json")
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith(f"{report.END}\nafter\n")
    assert text.count("| `calls` | calls/s | 200 | peer | 100 | **2** | ≥ 1 | 10% |") == 1
    assert "old" not in text


def test_the_table_shows_every_row_with_its_goal():
    console = Console(record=True, width=200, quiet=False, file=Path("/dev/null").open("w"))  # noqa: SIM115
    report.show([a_row("calls"), a_row("misses", ratio=0.5)], {"calls": "≥ 15"}, console)
    console.file.close()
    text = console.export_text()
    assert all(word in text for word in ("calls", "≥ 15", "2.00", "misses", "0.50", "10%"))
