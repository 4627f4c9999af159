"""The page on authentication is true: its application is written, checked and tested as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.pages import read_page, run_module, write_files

from seamline.cli import keys, users
from seamline.gateway.auth import errors
from seamline.kernel.settings import Settings

PAGE = read_page("authentication.md")
TEST = re.compile(r"^```python\n(from seamline\.testing.*?)^```$", re.MULTILINE | re.DOTALL)
TOML = re.compile(r"^```toml\n(\[(?:auth|gateway)\].*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The files of the page, and the users that its commands make."""
    assert write_files(PAGE, tmp_path) == 3
    for name, password, *more in (
        ("bo", "needle", "--role", "support", "--name", "Bo Weaver"),
        ("ada", "lovelace", "--name", "Ada Example"),
    ):
        command = [sys.executable, "-m", "seamline.cli", "users", "add", name, *more, "--password-stdin"]
        done = subprocess.run(command, cwd=tmp_path, input=password, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return tmp_path


def test_the_application_passes_the_checks(shop: Path):
    """``seamline check`` finds nothing, and the file of users holds no password."""
    assert "nothing found" in run_module(shop, "seamline.cli", "check")
    stored = (shop / "users.toml").read_text(encoding="utf-8")
    assert set(tomllib.loads(stored)["users"]) == {"ada", "bo"}
    assert "needle" not in stored
    assert (shop / "users.toml").stat().st_mode & 0o077 == 0


def test_the_test_of_the_page_passes_in_one_process_and_in_many(shop: Path):
    """One test in two topologies."""
    (found,) = TEST.findall(PAGE)
    (shop / "test_desk.py").write_text(found, encoding="utf-8")
    words = ("pytest", "-q", "-p", "no:cacheprovider", "--topologies", "local,processes", "test_desk.py")
    said = run_module(shop, *words)
    assert "2 passed" in said, said


def test_keys_are_made_listed_rotated_and_revoked(shop: Path):
    """As the page has it; the secret is in no file."""
    made = run_module(shop, "seamline.cli", "keys", "create", "nightly export", "--role", "reader", "--valid", "90d")
    text = re.search(r"slk_([a-z0-9]{16})_([0-9a-f]{64})", made)
    assert text, made
    listed = run_module(shop, "seamline.cli", "keys", "list", "--json")
    assert f'"id": "{text[1]}"' in listed
    assert text[2] not in listed
    assert "slk_" in run_module(shop, "seamline.cli", "keys", "rotate", text[1], "--overlap", "1d")
    assert "two secrets" in run_module(shop, "seamline.cli", "keys", "list", "--json")
    assert "revoked" in run_module(shop, "seamline.cli", "keys", "revoke", text[1])
    assert "SL4203" in run_module(shop, "seamline.cli", "keys", "rotate", text[1])
    assert all(text[2].encode() not in file.read_bytes() for file in shop.rglob("*") if file.is_file())


@pytest.mark.parametrize("example", TOML.findall(PAGE))
def test_every_example_of_settings_is_read(tmp_path: Path, example: str):
    """Keys and values as they stand."""
    (tmp_path / "seamline.toml").write_text(example + '\n[app]\nname = "shop"\nmodules = []\n', encoding="utf-8")
    assert Settings.load(tmp_path, {}).auth.enabled


def test_the_commands_exist():
    """Each verb of the page."""
    for name, group in (("keys", keys.app), ("users", users.app)):
        verbs = {str(each.name or getattr(each.callback, "__name__", "")) for each in group.registered_commands}
        assert set(re.findall(rf"^seamline {name} (\w+)", PAGE, re.MULTILINE)) <= verbs


def test_every_error_is_on_the_page():
    """By its code."""
    codes = {
        each.code
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.AuthenticationError)
    }
    assert set(re.findall(r"^\| (SL42\d{2}) ", PAGE, re.MULTILINE)) == codes - {"SL4200"}
