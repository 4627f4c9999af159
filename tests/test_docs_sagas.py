"""The page on sagas is true: its application is written, checked and tested as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from seamline.cli.sagas import app
from seamline.sagas import errors

PAGE = (Path(__file__).parent.parent / "docs" / "sagas.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`(?P<name>[\w./]+)`\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
TEST = re.compile(r"^```python\n(import pytest\n.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The files of the page."""
    for found in FILE.finditer(PAGE):
        file = tmp_path / found["name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(found["text"], encoding="utf-8")
    (tmp_path / "shop" / "__init__.py").touch()
    assert len(list(tmp_path.rglob("*.py"))) == 7
    return tmp_path


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=dict(os.environ),  # noqa: TID251  # handed on, not read
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_the_application_passes_the_checks(shop: Path):
    """``seamline check`` finds nothing."""
    assert "nothing found" in run(shop, "seamline.cli", "check")


def test_the_test_of_the_page_passes_in_one_process_and_in_many(shop: Path):
    """Three tests in two topologies."""
    (found,) = TEST.findall(PAGE)
    (shop / "test_checkout.py").write_text(found, encoding="utf-8")
    (shop / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\npythonpath = .\n")
    words = ("pytest", "-q", "-p", "no:cacheprovider", "--topologies", "local,processes", "test_checkout.py")
    said = run(shop, *words)
    assert "6 passed" in said, said


def test_every_error_of_sagas_is_on_the_page():
    """By its code."""
    codes = {
        each.code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.SagasError)
    }
    assert set(re.findall(r"^\| (SL7\d{3}) ", PAGE, re.MULTILINE)) == codes - {"SL7300"}


def test_the_commands_exist():
    """Each verb of the page."""
    verbs = {str(command.name or getattr(command.callback, "__name__", "")) for command in app.registered_commands}
    assert set(re.findall(r"^\$ seamline sagas (\w+)", PAGE, re.MULTILINE)) == verbs
