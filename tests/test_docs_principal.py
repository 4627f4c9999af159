"""The page on whose behalf is true: its application and its test run as they stand."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from tests.pages import read_page, run_module, write_files

from seamline import Principal
from seamline.mesh.identity.links import DEFERRED_S, LINK_S

PAGE = read_page("principal.md")
TEST = re.compile(r"^```python\n(import pytest\n.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_test_of_the_page_passes_in_one_process_and_in_many(tmp_path: Path):
    write_files(PAGE, tmp_path)
    (found,) = TEST.findall(PAGE)
    (tmp_path / "test_desk.py").write_text(found, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\npythonpath = .\n")
    words = ("pytest", "-q", "-p", "no:cacheprovider", "--topologies", "local,processes", "test_desk.py")
    said = run_module(tmp_path, *words)
    assert "2 passed" in said, said


def test_all_that_a_handler_sees_is_on_the_page():
    told = set(re.findall(r"^\| `who\.(\w+)", PAGE, re.MULTILINE))
    assert told == {name for name, _ in inspect.getmembers(Principal) if not name.startswith("_")}


def test_its_figures_are_those_of_the_code():
    assert LINK_S == 60
    assert DEFERRED_S == 90 * 86_400
    assert "for at most 90 days" in PAGE
    assert "Proofs live for a minute" in PAGE
