"""What docs/observability.md says of explanation and drills is what the code does."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from tests.pages import read_page

from seamline.kernel.settings import Settings
from seamline.observe.drills.catalog import FAULTS
from seamline.observe.explain import Model, ranking
from seamline.run import drilling, drills

_, _, AFTER = read_page("observability.md").partition("\n## Why: explanation, and how well it does\n")
SECTION = AFTER.partition("\n## ")[0]
SAID = re.sub(r"\s+", " ", SECTION)


def test_every_fault_is_on_the_page_and_no_other() -> None:
    """The table names the faults of the catalogue."""
    table = SECTION.partition("| fault | what it does |")[2].partition("\n\n")[0]
    names = {
        name for cell in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE) for name in re.findall(r"`([\w-]+)`", cell)
    }
    assert names == set(FAULTS)


def test_the_numbers_of_the_page_are_the_codes() -> None:
    """When it abstains, how long a worker holds a fault, what a drill keeps, how long a model is waited for."""
    assert f"Below a score of {ranking.ENOUGH:g}" in SAID
    assert f"fewer than {ranking.WINDOWS_BEFORE_MIN} windows known before or {ranking.WINDOWS_AFTER_MIN} after" in SAID
    assert f"fewer than {ranking.CALLS_MIN} calls" in SAID
    assert (
        f"{['zero', 'one', 'two', 'three', 'four', 'five'][int(drills.LEASE_S)]} seconds after a worker last heard"
        in SAID
    )
    assert f"up to {drilling.LEAK_BYTES_MAX // 2**20} MB" in SAID
    waited_s = inspect.signature(Model).parameters["timeout_s"].default
    assert f"no answer comes within {waited_s:g} seconds" in SAID


def test_the_settings_of_the_page_are_read(tmp_path: Path) -> None:
    """The model's."""
    (text,) = re.findall(r"^```toml\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
    (tmp_path / "seamline.toml").write_text(f'{text}\n[app]\nname = "shop"\nmodules = []\n', encoding="utf-8")
    assert Settings.load(tmp_path, {}).observe.model_name == "some-model"


def test_the_commands_of_the_page_plant_faults_that_there_are() -> None:
    """Each ``drill run`` names a fault of the catalogue."""
    used = re.findall(r"seamline drill run ([\w-]+)", SECTION)
    assert used
    assert set(used) <= set(FAULTS)


def test_only_faults_between_processes_are_said_to_be() -> None:
    """``network`` and ``loss`` are refused within one process, and the page says so."""
    assert {name for name, each in FAULTS.items() if not each.one_process} == {"network", "loss"}
    assert SAID.count("only between processes") == 2
