"""The page on versions of models is true: its application is checked, its commands run, its tables are the code's."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest
from tests.pages import read_page, run_module, write_files

from seamline.cli import app
from seamline.cli.models import app as verb
from seamline.kernel.settings import ModelsSettings
from seamline.models.registry import errors as registry_errors
from seamline.models.registry.errors import RegistryError
from seamline.models.registry.sources import Fetched, Intake, fetch
from seamline.models.rollout import errors as rollout_errors
from seamline.models.rollout.errors import RolloutError

PAGE = read_page("model-registry.md")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The files of the page."""
    assert write_files(PAGE, tmp_path) == 3
    return tmp_path


def test_the_application_passes_the_checks(shop: Path):
    """``seamline check`` finds nothing."""
    assert "nothing found" in run_module(shop, "seamline.cli", "check")


def test_the_commands_of_the_page_run(shop: Path, monkeypatch: pytest.MonkeyPatch):
    """One after the other, in the application's folder; what they say is what the page promises."""
    monkeypatch.chdir(shop)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [each for each in sys.modules if each.partition(".")[0] == "shop"]:
        monkeypatch.delitem(sys.modules, name)  # of others' examples
    (block,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    said: dict[str, str] = {}
    for line in block.splitlines():
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)]
        heard = io.StringIO()
        with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
            status = app.run(words[1:])
        assert status == 0, f"{line}: {heard.getvalue()}"
        said[" ".join(words[2:4])] = heard.getvalue()
    for name in [each for each in sys.modules if each.partition(".")[0] == "shop"]:
        del sys.modules[name]
    assert len(said) == 9
    assert "recall@1 0.75" in said["card letters:2"]
    assert re.search(r"letters-2 +█+░+ +10\.0% +canary", said["show Alike"])
    assert re.search(r"letters-1 +█{20} +100\.0% +champion", said["list"])


def test_every_command_is_on_the_page():
    """And no other."""
    table = PAGE.partition("| command | |")[2].partition("\n\n")[0]
    written = set(re.findall(r"`(\w+)`", table))
    commands = {each.name or each.callback.__name__ for each in verb.registered_commands if each.callback}
    assert written == commands | {each.name for each in verb.registered_groups}


def test_every_error_is_on_the_page():
    """By its code."""
    kinds = [
        each
        for module, base in ((registry_errors, RegistryError), (rollout_errors, RolloutError))
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, base) and each is not base
    ]
    assert set(re.findall(r"^\| (SL\d{4}) \|", PAGE, re.MULTILINE)) == {each.code for each in kinds}


def test_every_source_of_the_page_is_one(monkeypatch: pytest.MonkeyPatch):
    """Each address is understood, and goes to the source that is meant."""
    table = PAGE.partition("| where from | address |")[2].partition("\n\n")[0]
    addresses = re.findall(r"`(?!pip)([^`]+)`", table)
    assert len(addresses) == 9
    asked: list[str] = []

    def taken(address: str, *_: object) -> Fetched:
        asked.append(address)
        return Fetched(address, {})

    for name in ("folder", "hub", "s3", "oci", "mlflow"):
        monkeypatch.setattr(f"seamline.models.registry.sources.{name}.fetch_{name}", taken)
    for address in addresses:
        fetch(address, Intake.__new__(Intake), ModelsSettings())
    assert len(asked) == 9
