"""The pipeline's own rules: what it may not skip, and that its script is a program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SAMPLE = """
import pytest
@pytest.mark.needs_server
def test_server(): pytest.skip("not installed")
@pytest.mark.needs_server
@pytest.mark.skipif(True, reason="not installed")
def test_marked(): ...
@pytest.mark.needs_server
@pytest.fixture
def server(): pytest.skip("not installed")
@pytest.mark.needs_server
def test_fixture(missing): ...
@pytest.fixture
def missing(): pytest.skip("not installed")
@pytest.mark.needs_server
@pytest.mark.xfail(strict=True)
def test_expected(): assert False
def test_other(): pytest.skip("allowed")
"""


@pytest.mark.parametrize(
    ("pipeline", "counts"),
    [("", "4 skipped, 1 xfailed"), ("1", "1 failed, 1 skipped, 1 xfailed, 2 errors")],
)
def test_pipeline_skips_no_server(tmp_path: Path, pipeline: str, counts: str):
    """Where SEAMLINE_CI is set a skip of a ``needs_server`` test fails, however it skips; elsewhere it is a skip."""
    (tmp_path / "conftest.py").write_text((ROOT / "conftest.py").read_text())
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = needs_server\n")
    (tmp_path / "test_sample.py").write_text(
        SAMPLE.replace("@pytest.mark.needs_server\n@pytest.fixture", "@pytest.fixture")
    )
    environment = {**os.environ, "SEAMLINE_CI": pipeline}  # noqa: TID251  # handed on to another program
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True, text=True, timeout=60, env=environment, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert counts in done.stdout, done.stdout


def test_pipeline_script_is_executable_and_parses():
    """``.ci/run`` can be started, and bash understands it."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)], check=False, timeout=60).returncode == 0
