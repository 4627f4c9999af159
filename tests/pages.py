"""What the tests of the documentation share: the files that a page shows, and commands run among them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

_FILE = re.compile(r"^`(?P<name>[\w./]+)`\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def read_page(name: str) -> str:
    return (Path(__file__).parent.parent / "docs" / name).read_text(encoding="utf-8")


def write_files(page: str, folder: Path) -> int:
    """Write the files that a page names above their text, in a package ``shop``. How many Python files there are."""
    for found in _FILE.finditer(page):
        file = folder / found["name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(found["text"], encoding="utf-8")
    (folder / "shop" / "__init__.py").touch()
    return len(list(folder.rglob("*.py")))


def run_module(folder: Path, *words: str, stdin: str | None = None, **variables: str) -> str:
    """What ``python -m`` prints in a folder."""
    environment = {**os.environ, **variables}  # noqa: TID251  # handed on to the command, not read
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder, env=environment, input=stdin, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def run_test(page: str, folder: Path) -> str:
    """What pytest says of the test that a page shows, run among its files in one process and in many."""
    (code,) = re.findall(r"^```python\n(import asyncio\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    (folder / "test_shop.py").write_text(code, encoding="utf-8")
    (folder / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
        "pythonpath = .\nfilterwarnings = error\n"
    )
    words = ("pytest", "-q", "-p", "no:cacheprovider", "--topologies", "local,processes", "test_shop.py")
    return run_module(folder, *words)
