"""The page on sagas is true: its application is written, checked and tested as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.pages import read_page, run_module, write_files

from seamline.cli.sagas import app
from seamline.sagas import errors

PAGE = read_page("sagas.md")
TEST = re.compile(r"^```python\n(import pytest\n.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The files of the page."""
    assert write_files(PAGE, tmp_path) == 7
    return tmp_path


def test_the_application_passes_the_checks(shop: Path):
    """``seamline check`` finds nothing."""
    assert "nothing found" in run_module(shop, "seamline.cli", "check")


def test_the_test_of_the_page_passes_in_one_process_and_in_many(shop: Path):
    """Three tests in two topologies."""
    (found,) = TEST.findall(PAGE)
    (shop / "test_checkout.py").write_text(found, encoding="utf-8")
    (shop / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\npythonpath = .\n")
    words = ("pytest", "-q", "-p", "no:cacheprovider", "--topologies", "local,processes", "test_checkout.py")
    said = run_module(shop, *words)
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
