"""The README's tutorial is an application that works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
FILE = re.compile(r"^`(?P<name>[\w./]+)`\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def write_tutorial(folder: Path) -> list[str]:
    names: list[str] = []
    for found in FILE.finditer(README.read_text(encoding="utf-8")):
        file = folder / found["name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(found["text"], encoding="utf-8")
        names.append(found["name"])
    return names


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tutorial_is_whole_and_finds_nothing_wrong(tmp_path: Path):
    """Its files, written as they stand, pass ``seamline check``."""
    assert len(write_tutorial(tmp_path)) == 7
    assert "nothing found" in run(tmp_path, "seamline.cli", "check")


def test_the_tutorials_test_passes_in_every_topology(tmp_path: Path):
    """In one process, with copies, and with a process per module; with no other plugin and nothing set up."""
    write_tutorial(tmp_path)
    # The command beside the interpreter: `python -m pytest` would put the folder on the path by itself.
    pytest_command = str(Path(sys.executable).with_name("pytest"))
    command = [pytest_command, "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:anyio"]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False).stdout
    assert "3 passed" in output
