"""The page on evolution is true: its commands print what it shows, and its table of verdicts is the code's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.module.test_evolution import call, compared, event

PAGE = (Path(__file__).parent.parent / "docs" / "evolution.md").read_text(encoding="utf-8")
BLOCKS = list(re.finditer(r"^```(?P<kind>python|console)\n(?P<text>.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
ROW = re.compile(r"^\| (?P<what>[^|]+) \| (?P<was>`[^`]*`)? ?\| (?P<now>`[^`]*`)? ?\|"
                 r" (?P<parameter>\w+) \| (?P<result>\w+) \| (?P<event>\w+) \|$", re.MULTILINE)  # fmt: skip
ROWS = list(ROW.finditer(PAGE))
ORDER = ("breaking", "care", "compatible")


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, check=True)


def test_the_story_of_the_page_is_what_happens(tmp_path: Path):
    """Block by block: files are written as they stand, the first is tagged, and each command prints what is shown."""
    package = tmp_path / "shop" / "stock"
    package.mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "seamline.toml").write_text('[app]\nname = "shop"\nmodules = ["shop.stock"]\n')
    (package / "module.py").write_text("from seamline import Module\nmodule = Module('stock')\n")
    commands = 0
    for number, block in enumerate(BLOCKS):
        if block["kind"] == "python":
            (package / "__init__.py").write_text(block["text"])
            if number == 0:
                git(tmp_path, "init", "-q")
                git(tmp_path, "add", ".")
                git(tmp_path, "commit", "-q", "-m", "first")
                git(tmp_path, "tag", "v1")
            continue
        for command, shown in re.findall(r"^\$ seamline (.*)\n((?:(?!\$ ).*\n)*)", block["text"], re.MULTILINE):
            done = subprocess.run(
                [sys.executable, "-m", "seamline.cli", *shlex.split(command)],
                cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert done.stdout == shown, done.stderr
            assert done.returncode == (1 if "✗" in shown else 0)
            commands += 1
    assert commands == 4


def fields(row: re.Match[str], age: str) -> str:
    return (row[age] or "").strip("`").replace("\\|", "|")


def worst(old: str, new: str) -> str:
    return min((each.verdict for each in compared(old, new)), key=ORDER.index)


@pytest.mark.parametrize("row", ROWS, ids=[row["what"] for row in ROWS])
def test_the_table_of_verdicts_is_the_codes(row: re.Match[str]):
    was, now = fields(row, "was"), fields(row, "now")
    as_parameter = [call(f", {each}" if each else "") for each in (was, now)]
    types = [f"@dataclasses.dataclass(kw_only=True)\nclass Line:\n    sku: str\n    {each}\n" for each in (was, now)]
    in_result = [call(result="Line", types=each) for each in types]
    in_event = [event(f"sku: str; {each}" if each else "sku: str") for each in (was, now)]
    assert worst(*as_parameter) == row["parameter"]
    assert worst(*in_result) == row["result"]
    assert worst(*in_event) == row["event"]


def test_the_table_is_read_whole():
    assert len(ROWS) == 16
