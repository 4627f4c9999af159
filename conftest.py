"""The rule for all tests, of the package and of the examples: a pipeline skips no test that needs a program."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

IN_PIPELINE = bool(os.environ.get("SEAMLINE_CI"))  # noqa: TID251  # the tests' own switch, not the product's


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where SEAMLINE_CI is set, a test that needs a server and skips has failed: nobody would notice else."""
    report = yield
    expected = hasattr(report, "wasxfail")
    if IN_PIPELINE and report.outcome == "skipped" and not expected and item.get_closest_marker("needs_server"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and in the pipeline it must run"
    return report
