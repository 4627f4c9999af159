"""The audit: what is written stays, a flood cannot fill the disk, and a full disk cannot stop the service."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.audit_rig import damage, fill, findings, unbounded

from seamline.kernel.audit import AuditLog, chain
from seamline.kernel.clock import ManualClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit" / "orders.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def deny(audit: AuditLog, principal: str = "ads", reason: str = "no policy permits it") -> bool:
    return audit.write(
        "call", "deny", principal=principal, action="Payments.charge", resource="payments", reason=reason
    )


def test_a_line_holds_the_decision_and_is_on_the_file_at_once(path: Path):
    """Nothing is buffered: the line is there for a reader while the audit is open."""
    audit = AuditLog(path, clock=ManualClock())
    assert audit.write(
        "call",
        "deny",
        principal="ads",
        action="Payments.charge",
        resource="payments",
        reason="no policy permits it",
        peer="127.0.0.1:5",
        trace="abc",
    )
    (line,) = lines(path)
    assert audit.written == ("orders", 1, line.pop("hash"))
    assert line == {
        "number": 1,
        "time": "2026-01-01T00:00:00.000Z",
        "kind": "call",
        "decision": "deny",
        "principal": "ads",
        "action": "Payments.charge",
        "resource": "payments",
        "reason": "no policy permits it",
        "peer": "127.0.0.1:5",
        "trace": "abc",
        "prev": chain.first("orders"),
    }
    audit.close()


def test_a_reopened_audit_goes_on_with_the_chain(path: Path):
    """The first line of the second writer holds the hash of the last of the first."""
    for _ in range(2):
        audit = AuditLog(path)
        deny(audit)
        audit.close()
    first, second = lines(path)
    assert second["prev"] == first["hash"]
    assert (first["number"], second["number"]) == (1, 2)
    assert findings(path.parent) == []


def test_two_writers_at_once_have_a_log_each(path: Path):
    """An old and a new generation of a workload run side by side; neither breaks the other's chain."""
    old, new = AuditLog(path), AuditLog(path)
    for _ in range(3):
        deny(old)
        deny(new)
    old.close()
    newer = AuditLog(path)
    deny(newer)
    deny(new)
    new.close()
    newer.close()
    assert len(lines(path)) == 4
    assert len(lines(path.with_name("orders~1.jsonl"))) == 4
    assert findings(path.parent) == []


def test_only_the_owner_may_read(path: Path):
    audit = AuditLog(path)
    deny(audit)
    assert path.stat().st_mode & 0o777 == 0o600
    audit.close()


def test_a_flood_of_one_denial_is_cut_off_and_counted(path: Path):
    clock = ManualClock()
    audit = AuditLog(path, clock=clock)
    assert sum(deny(audit) for _ in range(100_000)) == 10
    assert path.stat().st_size < 5000
    clock.advance(61)
    assert deny(audit)
    written = lines(path)
    assert len(written) == 12
    assert written[10]["suppressed"] == 99_990
    assert "suppressed" not in written[11]
    audit.close()
    assert findings(path.parent) == []


def test_the_end_of_a_flood_is_told_at_closing(path: Path):
    audit = AuditLog(path)
    for _ in range(15):
        deny(audit)
    audit.close()
    assert lines(path)[-1]["suppressed"] == 5


def test_one_flood_does_not_hide_another_denial(path: Path):
    audit = AuditLog(path)
    for _ in range(1000):
        deny(audit)
    assert deny(audit, principal="frontend")
    assert deny(audit, reason="another")
    audit.close()


def test_a_flood_of_ever_different_denials_is_bounded_too(path: Path):
    """Names invented by a peer fill neither the disk nor the memory, and the count is kept."""
    clock = ManualClock()
    audit = AuditLog(path, clock=clock)
    for number in range(20_000):
        deny(audit, reason=f"reason {number}")
    assert len(lines(path)) == 3000
    assert len(audit._flood._windows) <= 1000
    clock.advance(61)
    deny(audit, reason="later")
    assert lines(path)[-2]["suppressed"] == 17_000
    audit.close()


def test_files_are_rotated_by_size_and_bounded(path: Path):
    """The chain goes on over the files, and the log says itself which lines it has dropped."""
    audit = unbounded(path, bytes_max=5000, files_max=3)
    fill(audit, 100)
    audit.close()
    files = [path.with_name("orders.jsonl.2"), path.with_name("orders.jsonl.1"), path]
    assert sorted(path.parent.glob("*.jsonl*")) == sorted(files)
    assert all(file.stat().st_size <= 5000 for file in files)
    kept = [line for file in files for line in lines(file)]
    assert [line["number"] for line in kept] == list(range(kept[0]["number"], kept[-1]["number"] + 1))
    reasons = [line["reason"] for line in kept if line["kind"] == "call"]
    assert reasons == [f"reason {number}" for number in range(100 - len(reasons), 100)]
    assert len(reasons) > 15
    assert findings(path.parent) == []


def test_hostile_text_stays_within_its_line(path: Path):
    audit = AuditLog(path)
    audit.write("identity", "refuse", principal='x"}\n{"decision":"allow"', action="\udcff\0", reason="y" * 100_000)
    (line,) = lines(path)
    assert line["decision"] == "refuse"
    assert line["principal"] == 'x"}\n{"decision":"allow"'
    assert len(line["reason"]) == 501
    audit.close()
    assert findings(path.parent) == []


def test_a_folder_that_cannot_be_written_loses_lines_but_does_not_raise(tmp_path: Path):
    (tmp_path / "audit").write_text("a file where the folder should be")
    audit = AuditLog(tmp_path / "audit" / "orders.jsonl")
    assert not deny(audit)
    assert not deny(audit)
    assert audit.lost == 2
    (tmp_path / "audit").unlink()
    assert deny(audit)
    assert lines(tmp_path / "audit" / "orders.jsonl")[0]["lost_before"] == 2
    assert audit.lost == 0
    audit.close()


def test_a_full_disk_tears_no_later_line(path: Path, monkeypatch: pytest.MonkeyPatch):
    """The disk takes half a line and then nothing; when there is room again, the next line says what the half was."""
    audit = AuditLog(path)
    deny(audit)
    write = os.write

    def write_a_little(descriptor: int, content: bytes) -> int:
        return write(descriptor, content[:20])

    monkeypatch.setattr(os, "write", write_a_little)
    assert not deny(audit)
    monkeypatch.setattr(os, "write", write)
    assert deny(audit)
    audit.close()
    first, torn, told, last = path.read_text().splitlines()
    assert json.loads(first)["decision"] == "deny"
    assert len(torn) == 20
    assert json.loads(told)["torn"] == [chain.digest(torn.encode())]
    assert json.loads(last)["lost_before"] == 1
    assert damage(path.parent) == []
    (half,) = findings(path.parent)
    assert (half.file, half.line, half.crash) == ("orders.jsonl", 2, True)
