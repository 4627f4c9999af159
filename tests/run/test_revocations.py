"""What is revoked is on disk before anybody hears of it, and reaches every process before it serves."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from supervised import Starter, until

from seamline.cli.app import run
from seamline.kernel.clock import ManualClock, now_ms
from seamline.run.errors import ControlError
from seamline.run.revocations import RevocationBook, checked


def test_a_milder_word_does_not_take_back_a_stricter_one(tmp_path: Path):
    """Also when the supervisor has begun anew between them, and in what new workers are told."""
    clock = ManualClock()
    RevocationBook(tmp_path, clock).add([{"kind": "user", "id": "ann", "reason": "left", "before": 9 * 10**12}])
    book = RevocationBook(tmp_path, clock)
    book.add([{"kind": "user", "id": "ann", "before": 5}])
    for each in (book, RevocationBook(tmp_path, clock)):
        (entry,) = each.entries()
        assert (entry["before"], entry["reason"]) == (9 * 10**12, "left")


def test_the_file_is_as_long_as_what_still_holds(tmp_path: Path):
    """Sign-outs of a year leave nothing behind: entries end with what they void, and the file is written anew."""
    clock = ManualClock()
    book = RevocationBook(tmp_path, clock)
    for day in range(40):
        until_ms = now_ms(clock) + 43_200_000
        book.add({"kind": "session", "id": f"{day}-{each}", "until": until_ms} for each in range(200))
        clock.advance(86_400)
    assert book.entries() == []
    assert len((tmp_path / "revocations.jsonl").read_text().splitlines()) < 3000
    RevocationBook(tmp_path, clock).entries()
    assert (tmp_path / "revocations.jsonl").read_text() == ""
    assert (tmp_path / "revocations.jsonl").stat().st_mode & 0o077 == 0


def test_many_are_told_in_parts_that_fit_a_message(tmp_path: Path):
    """Fifty thousand sessions do not keep a worker from starting."""
    book = RevocationBook(tmp_path, ManualClock())
    book.add({"kind": "session", "id": f"{each:08}" + "x" * 200} for each in range(50_000))
    parts = list(book.parts())
    assert sum(map(len, parts)) == 50_000
    assert max(len(json.dumps(part)) for part in parts) < 4 * 1024 * 1024


@pytest.mark.parametrize(
    "asked", [{"kind": "module", "id": "ordres"}, {"kind": "planet", "id": "x"}, {"kind": "user", "id": ""}, {}]
)
def test_what_is_no_entry_is_refused(asked: dict[str, str]):
    with pytest.raises(ControlError):
        checked(asked, ["orders"])


def test_it_outlives_the_supervisor_and_the_workers(start: Starter):
    """kill -9 to either: what serves next knows it, from its first answer on."""
    running = start(topology="services").until_ready()
    assert running.ask("revoke", entries=[{"kind": "session", "id": "s1"}])["workers"] == 3
    assert running.get()["revoked"] == ["s1"]
    front = running.pids()["front"]
    os.kill(front, signal.SIGKILL)
    again = until(running.get, "the next process")
    assert again["pid"] != front
    assert again["revoked"] == ["s1"]
    running.kill()
    assert start(topology="monolith").until_ready().get()["revoked"] == ["s1"]


def test_what_is_revoked_while_nothing_runs_holds_from_the_start(start: Starter):
    """`seamline identity revoke` writes it down for whoever starts next."""
    assert run(["identity", "revoke", "--user", "ann", "--app", str(start.folder)]) == 0
    assert run(["identity", "quarantine", "nobody", "--app", str(start.folder)]) != 0
    running = start(topology="monolith").until_ready()
    assert running.get()["revoked"] == ["ann"]
    lines = (running.data / "identity" / "revocations.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["ann"]


def test_a_worker_that_is_cut_off_goes_on_with_what_it_knows(start: Starter):
    """The supervisor stands still: workers refuse what they have heard of; the rest comes when it moves."""
    running = start(topology="services").until_ready()
    running.ask("revoke", entries=[{"kind": "session", "id": "s1"}])
    running.signal(signal.SIGSTOP)
    try:
        assert running.get()["revoked"] == ["s1"]
    finally:
        running.signal(signal.SIGCONT)
    running.ask("revoke", entries=[{"kind": "session", "id": "s2"}])
    assert running.get()["revoked"] == ["s1", "s2"]


def test_a_quarantined_module_gets_no_certificate_until_it_is_released(start: Starter):
    """Not for its next process either; the others of its process have theirs, and it is told once it is released."""
    running = start(topology="monolith").until_ready()
    running.ask("revoke", entries=[{"kind": "module", "id": "orders", "reason": "strange calls"}])
    running.ask("restart", workload=None)
    assert set(running.get()["until"]) == {"front", "cart"}
    audit = [json.loads(line) for line in (running.data / "audit" / "supervisor.jsonl").read_text().splitlines()]
    assert any(line["resource"] == "orders" and "strange calls" in line["reason"] for line in audit)
    listed = {each["name"]: each["quarantined"] for each in running.ask("identity")["modules"]}
    assert listed["orders"] == "strange calls"
    running.ask("revoke", entries=[{"kind": "module", "id": "orders", "lifted": True}])
    until(lambda: "orders" in running.get()["until"], "its certificate")
