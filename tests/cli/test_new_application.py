"""A newcomer's first ten minutes, typed as the manual says it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seamline.cli.app import run

WAIT_S = 120


def seamline(folder: Path, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "seamline.cli", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == status, f"{arguments}: {done.stdout}\n{done.stderr}"
    return done.stdout if status == 0 else done.stderr


def as_json(folder: Path, *arguments: str) -> Any:
    return json.loads(seamline(folder, *arguments, "--json"))


def page(url: str, path: str) -> str:
    with urllib.request.urlopen(url + path, timeout=30) as response:
        return response.read().decode()


@pytest.fixture(scope="module")
def pet_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new")
    seamline(folder, "new", "pet-store")
    return folder / "pet-store"


@pytest.fixture(scope="module")
def running(pet_store: Path) -> Iterator[str]:
    """The application in the background; its public address."""
    status = as_json(pet_store, "up", "--detach", "--port", "0")
    yield status["url"]
    seamline(pet_store, "down")


def test_it_is_checked_and_drawn_without_being_started(pet_store: Path) -> None:
    """`check` finds nothing wrong, `graph` knows the one call, `contracts` the one method."""
    assert seamline(pet_store, "check") == "2 modules, nothing found.\n"
    assert seamline(pet_store, "graph") == "web\n└─ Greetings\nCalling nobody: greetings.\n"
    assert as_json(pet_store, "contracts", "list")[0]["methods"] == ["greet"]
    shown = seamline(pet_store, "contracts", "show", "Greetings")
    assert "greet(name: str) -> Greeting   readonly" in shown


def test_it_answers_and_says_who_did(pet_store: Path, running: str) -> None:
    """The page greets; `status` has one process, and it is the one that answered."""
    assert "Hello, Ada!" in page(running, "/?name=Ada")
    (workload,) = as_json(pet_store, "status")["workloads"]
    assert workload["modules"] == ["web", "greetings"]
    assert f"Page by process {workload['replicas'][0]['pid']}" in page(running, "/")


def test_what_a_stranger_types_cannot_become_markup(running: str) -> None:
    """The name comes back as text."""
    assert "<script>" not in page(running, "/?name=%3Cscript%3E")


def test_its_topology_is_switched_under_load_without_a_failed_request(pet_store: Path, running: str) -> None:
    """The proof that the manual names, with its count; then each module has a process."""
    result = as_json(pet_store, "load", "--switches", "3", "--users", "4", "--pause", "0.3")
    assert result["scenario"] == "pet_store.load"
    assert [each["to"] for each in result["switches"]] == ["services", "monolith", "services"]
    assert (result["failed"], result["failed_steps"]) == (0, 0), result["failures"]
    assert result["requests"] > 50
    status = as_json(pet_store, "status")
    assert status["topology"] == "services"
    pids = {w["name"]: w["replicas"][0]["pid"] for w in status["workloads"]}
    shown = page(running, "/")
    assert f"Page by process {pids['web']}, greeting by process {pids['greetings']} (greetings)" in shown


def test_the_running_application_can_be_looked_at_and_changed(pet_store: Path, running: str) -> None:
    """scale, restart, inject, top and logs do what they say to an application that runs."""
    as_json(pet_store, "topology", "switch", "services")
    assert "greetings has 2 replicas. In " in seamline(pet_store, "scale", "greetings=2")
    replicas = {w["name"]: len(w["replicas"]) for w in as_json(pet_store, "status")["workloads"]}
    assert replicas == {"web": 1, "greetings": 2}
    before = as_json(pet_store, "status")
    assert "drained and ended web" in seamline(pet_store, "restart", "web")
    after = as_json(pet_store, "status")
    assert pid_of(before, "web") != pid_of(after, "web")
    for wrong in ("Greeting", "Greetings.great"):
        assert "SL9002" in seamline(pet_store, "inject", wrong, "--error", "internal", status=2)
    seamline(pet_store, "inject", "Greetings", "--error", "internal")
    with pytest.raises(urllib.request.HTTPError):
        page(running, "/")
    seamline(pet_store, "inject", "--clear")
    assert "Hello" in page(running, "/")
    edges = as_json(pet_store, "top", "--once", "--interval", "0.2")["edges"]
    assert ("web", "greetings", "Greetings.greet") in {(e["caller"], e["callee"], e["method"]) for e in edges}
    assert "failed by an injected fault" in seamline(pet_store, "logs", "-n", "200")
    assert "runs now" in seamline(pet_store, "topology", "list")


def pid_of(status: Any, workload: str) -> int:
    (found,) = (w["replicas"][0]["pid"] for w in status["workloads"] if w["name"] == workload)
    return found


def test_a_second_start_is_refused(pet_store: Path, running: str) -> None:
    """One application for one data folder; the error says what to do, and the first goes on."""
    said = seamline(pet_store, "up", "--port", "0", status=7)
    assert "SL5001" in said
    assert "Traceback" not in said
    said = seamline(pet_store, "up", "--detach", "--port", "0", status=2)
    assert "SL9005" in said
    assert "SL5001" in said
    assert "Hello" in page(running, "/")


def test_its_own_test_passes_in_every_topology(pet_store: Path) -> None:
    """The test that was written with it is real: it runs, three times each, and passes."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=pet_store,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Shop", "is not a name"),
        ("1shop", "is not a name"),
        ("json", "is a word of Python"),
        ("pytest", "is installed here already"),
        ("class", "is a word of Python"),
    ],
)
def test_a_name_that_would_not_work_is_refused(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name must do as a package that nothing else has; nothing is written otherwise."""
    assert run(["new", name, "--into", str(tmp_path / "x")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with anything in it is left as it is."""
    (tmp_path / "mine.txt").write_text("precious")
    assert run(["new", "shop2", "--into", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("SL9003")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
