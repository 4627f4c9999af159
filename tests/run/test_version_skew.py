"""Yesterday's contract against today's, over the real mesh between two processes: what breaks is what the diff says.

For every change of the table the four meetings are held (old caller and new callee, new caller and old callee, old
event and new reader, new event and old reader), and whom they break is compared with the verdict.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from tests.run import skew_cases
from tests.run.skew_cases import CASES, Case

from seamline.mesh.identity import CertificateAuthority, new_key_and_csr
from seamline.module.evolution import NEW_CALLER, NEW_EVENT, OLD_CALLER, OLD_EVENT, Change, changes

ROOT = Path(__file__).parents[2]


class Age:
    """The process of one age."""

    def __init__(self, folder: Path, age: int, certificates: Path) -> None:
        package = folder / str(age) / "skewed"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(skew_cases.package(age))
        code = f"import sys; sys.path[:0] = [{str(package.parent)!r}, {str(ROOT)!r}]; import tests.run.skew_child"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(age), str(certificates)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.port = self._read()

    def ask(self, *command: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        self.process.communicate(timeout=20)


@pytest.fixture(scope="module")
def ages(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Age, Age]]:
    """A process with yesterday's contracts and one with today's, with certificates of one application."""
    folder = tmp_path_factory.mktemp("skew")
    authority = CertificateAuthority.load_or_create(folder / "ca", "skew.local", "skew")
    modules: dict[str, tuple[str, str]] = {}
    for module in ("stock", "orders"):
        key, request = new_key_and_csr()
        modules[module] = (key.decode(), authority.issue(request, module, 3600).decode())
    certificates = folder / "certificates.json"
    certificates.write_text(
        json.dumps({"trust_domain": "skew.local", "bundle": authority.bundle_pem.decode(), "modules": modules})
    )
    old = Age(folder, 0, certificates)
    try:
        new = Age(folder, 1, certificates)
    except BaseException:
        old.end()
        raise
    yield old, new
    old.end()
    new.end()


@pytest.fixture(scope="module")
def verdicts(ages: tuple[Age, Age]) -> list[Change]:
    return changes(*(age.ask("describe") for age in ages))


def judged(verdicts: list[Change], number: int) -> list[Change]:
    names = {f"C{number:02}", f"E{number:02}", f"Gone{number:02}"}
    return [each for each in verdicts if each.name.partition(".")[0] in names]


def lost(whole: Any, part: Any) -> bool:
    """Whether something of ``part`` is not in ``whole``, or is another there."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return any(name not in whole or lost(whole[name], value) for name, value in part.items())  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    return bool(whole != part)


def call_breaks(caller: Age, callee: Age, number: int, *, old_calls: bool) -> bool:
    """An error, a value that did not arrive, a value made up for one that did not, or work done twice."""
    answer = caller.ask("call", number, callee.port)
    seen = callee.ask("received", number)
    if "lose_the_answer()" in CASES[number].answer[0]:
        return seen["runs"] > 1 and not seen["idempotent"]
    if "error" in answer:
        return True
    return old_calls and "read" in answer and (lost(seen["got"], answer["sent"]) or lost(seen["wrote"], answer["read"]))


def event_breaks(writer: Age, reader: Age, number: int, *, old_reads: bool) -> bool:
    """An error, another key, or a value made up for one that is not there."""
    written = writer.ask("publish", number)
    seen = reader.ask("handle", number, written["data"], written["version"])
    if "error" in seen or (not old_reads and written["key"] != seen["key"]):
        return True
    return old_reads and lost(json.loads(written["data"]), seen["read"])


def meetings(old: Age, new: Age, number: int, case: Case) -> set[str]:
    """Whom the change breaks."""
    found: set[str] = set()
    if case.event[0]:
        if event_breaks(old, new, number, old_reads=False):
            found.add(OLD_EVENT)
        if event_breaks(new, old, number, old_reads=True):
            found.add(NEW_EVENT)
        if case.left_out and "error" in new.ask("handle", number, case.left_out, 1):
            found.add(OLD_EVENT)
        return found
    if call_breaks(old, new, number, old_calls=True):
        found.add(OLD_CALLER)
    if "def take" in case.new and call_breaks(new, old, number, old_calls=False):
        found.add(NEW_CALLER)
    if case.left_out and "error" in (new.ask("request", number, case.left_out) or {}):
        found.add(OLD_CALLER)
    return found


@pytest.mark.parametrize(("number", "case"), list(enumerate(CASES)), ids=[case.name for case in CASES])
def test_the_verdict_is_what_happens(ages: tuple[Age, Age], verdicts: list[Change], number: int, case: Case):
    said = judged(verdicts, number)
    assert bool(said) == (case.old != case.new)
    assert meetings(*ages, number, case) == {each for change in said for each in change.breaks}, said


def test_the_table_has_every_verdict_and_every_meeting(verdicts: list[Change]):
    """So that the comparison above says something of each."""
    assert {each.verdict for each in verdicts} == {"breaking", "care", "compatible"}
    assert {each for change in verdicts for each in change.breaks} == {OLD_CALLER, NEW_CALLER, OLD_EVENT, NEW_EVENT}
