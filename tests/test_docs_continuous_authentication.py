"""The page on continuous authentication is true: its commands, its settings, and its table of events."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tests.pages import read_page, run_module

from seamline.gateway.signals import vocabulary
from seamline.kernel.settings import Settings

PAGE = read_page("continuous-authentication.md")
SETTINGS = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
APP = '\n[app]\nname = "shop"\nmodules = ["shop.payments"]\n'


def test_the_commands_print_what_the_page_shows(tmp_path: Path):
    """Where nothing runs, what is revoked holds from the next start on."""
    (tmp_path / "seamline.toml").write_text(APP)
    block = re.search(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert block
    pairs = re.findall(r"^\$ seamline (.*)\n([^$].*)\n", block[1], re.MULTILINE)
    assert len(pairs) == 3
    for words, shown in pairs:
        assert run_module(tmp_path, "seamline.cli", *shlex.split(words)).strip() == shown


@pytest.mark.parametrize("text", SETTINGS)
def test_the_settings_are_read(text: str, tmp_path: Path):
    (tmp_path / "seamline.toml").write_text(text + APP)
    assert Settings.load(tmp_path).auth.enabled


def test_every_event_that_is_heard_is_in_the_table():
    for event in vocabulary.HEARD:
        name = event.rpartition("/")[2]
        assert f"`{name}`" in PAGE, name
