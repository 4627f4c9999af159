"""The audit trail: what is written stays, a flood cannot fill the disk, and a full disk cannot stop the service."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from seamline.kernel.clock import ManualClock
from seamline.mesh.audit import Audit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit" / "orders.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def deny(audit: Audit, principal: str = "ads", reason: str = "no policy permits it") -> bool:
    return audit.record("deny", principal=principal, action="Payments.charge", resource="payments", reason=reason)


def test_a_line_holds_the_decision_and_is_on_the_file_at_once(path: Path):
    """Nothing is buffered: the line is there for a reader while the audit is open."""
    audit = Audit(path, clock=ManualClock())
    assert audit.record(
        "deny",
        principal="ads",
        action="Payments.charge",
        resource="payments",
        reason="no policy permits it",
        peer="127.0.0.1:5",
        trace="abc",
    )
    assert lines(path) == [
        {
            "time": "2026-01-01T00:00:00.000Z",
            "decision": "deny",
            "principal": "ads",
            "action": "Payments.charge",
            "resource": "payments",
            "reason": "no policy permits it",
            "peer": "127.0.0.1:5",
            "trace": "abc",
        }
    ]
    audit.close()


def test_a_reopened_audit_appends(path: Path):
    for _ in range(2):
        audit = Audit(path)
        deny(audit)
        audit.close()
    assert len(lines(path)) == 2


def test_only_the_owner_may_read(path: Path):
    audit = Audit(path)
    deny(audit)
    assert path.stat().st_mode & 0o777 == 0o600
    audit.close()


def test_a_flood_of_one_denial_is_cut_off_and_counted(path: Path):
    clock = ManualClock()
    audit = Audit(path, clock=clock)
    assert sum(deny(audit) for _ in range(100_000)) == 10
    assert path.stat().st_size < 3000
    clock.advance(61)
    assert deny(audit)
    written = lines(path)
    assert len(written) == 12
    assert written[10]["suppressed"] == 99_990
    assert "suppressed" not in written[11]
    audit.close()


def test_the_end_of_a_flood_is_told_at_closing(path: Path):
    audit = Audit(path)
    for _ in range(15):
        deny(audit)
    audit.close()
    assert lines(path)[-1]["suppressed"] == 5


def test_one_flood_does_not_hide_another_denial(path: Path):
    audit = Audit(path)
    for _ in range(1000):
        deny(audit)
    assert deny(audit, principal="frontend")
    assert deny(audit, reason="another")
    audit.close()


def test_a_flood_of_ever_different_denials_is_bounded_too(path: Path):
    """Names invented by a peer fill neither the disk nor the memory, and the count is kept."""
    clock = ManualClock()
    audit = Audit(path, clock=clock)
    for number in range(20_000):
        deny(audit, reason=f"reason {number}")
    assert len(lines(path)) == 3000
    assert len(audit._windows) <= 1000
    clock.advance(61)
    deny(audit, reason="later")
    assert lines(path)[-2]["suppressed"] == 17_000
    audit.close()


def test_files_are_rotated_by_size_and_bounded(path: Path):
    audit = Audit(path, bytes_max=2000, files_max=3, per_window=10**6, total_per_window=10**6)
    for number in range(100):
        deny(audit, reason=f"reason {number}")
    audit.close()
    files = sorted(file.name for file in path.parent.iterdir())
    assert files == ["orders.jsonl", "orders.jsonl.1", "orders.jsonl.2"]
    assert all(file.stat().st_size <= 2000 for file in path.parent.iterdir())
    kept = [line["reason"] for file in reversed(files) for line in lines(path.parent / file)]
    assert kept == [f"reason {number}" for number in range(100 - len(kept), 100)]
    assert len(kept) > 20


def test_a_single_file_is_bounded(path: Path):
    audit = Audit(path, bytes_max=1000, files_max=1, per_window=10**6, total_per_window=10**6)
    for _ in range(100):
        deny(audit)
    audit.close()
    assert path.stat().st_size <= 1000
    assert [file.name for file in path.parent.iterdir()] == ["orders.jsonl"]


def test_hostile_text_stays_within_its_line(path: Path):
    audit = Audit(path)
    audit.record("refuse", principal='x"}\n{"decision":"allow"', action="\udcff\0", reason="y" * 100_000)
    (line,) = lines(path)
    assert line["decision"] == "refuse"
    assert line["principal"] == 'x"}\n{"decision":"allow"'
    assert len(line["reason"]) == 501
    audit.close()


def test_a_folder_that_cannot_be_written_loses_lines_but_does_not_raise(tmp_path: Path):
    (tmp_path / "audit").write_text("a file where the folder should be")
    audit = Audit(tmp_path / "audit" / "orders.jsonl")
    assert not deny(audit)
    assert not deny(audit)
    assert audit.lost == 2
    (tmp_path / "audit").unlink()
    assert deny(audit)
    assert lines(tmp_path / "audit" / "orders.jsonl")[0]["lost_before"] == 2
    assert audit.lost == 0
    audit.close()


def test_a_full_disk_tears_no_later_line(path: Path, monkeypatch: pytest.MonkeyPatch):
    """The disk takes half a line and then nothing; when there is room again, the next line stands on its own."""
    audit = Audit(path)
    deny(audit)
    write = os.write

    def write_a_little(descriptor: int, content: bytes) -> int:
        return write(descriptor, content[:20])

    monkeypatch.setattr(os, "write", write_a_little)
    assert not deny(audit)
    monkeypatch.setattr(os, "write", write)
    assert deny(audit)
    audit.close()
    first, torn, last = path.read_text().splitlines()
    assert json.loads(first)["decision"] == "deny"
    assert len(torn) == 20
    assert json.loads(last)["lost_before"] == 1
