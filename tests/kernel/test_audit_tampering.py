"""Somebody alters the audit, and each alteration is found and named; a crash is told from it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.kernel.audit_rig import damage, fill, findings, sign, unbounded

from seamline.kernel.audit import AuditError, AuditLog, Written, chain
from seamline.kernel.audit.checkpoints import Checkpoints
from seamline.kernel.audit.key import AuditKey, fingerprint, load_public
from seamline.kernel.audit.verify import checkpoints, verify
from seamline.kernel.clock import ManualClock

Lines = list[bytes]
SIGNED, ALL = 8, 10


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of ten lines, the first eight under a signed checkpoint."""
    found = tmp_path / "audit" / "orders.jsonl"
    log = unbounded(found)
    fill(log, SIGNED)
    sign(tmp_path, log)
    fill(log, ALL - SIGNED)
    log.close()
    assert findings(found.parent) == []
    return found


def alter(path: Path, how: Callable[[Lines], Lines]) -> None:
    path.write_bytes(b"".join(how(path.read_bytes().splitlines(keepends=True))))


def said(path: Path) -> str:
    return "\n".join(damage(path.parent))


@pytest.mark.parametrize("number", range(1, ALL + 1))
def test_a_changed_line_is_named(path: Path, number: int):
    """By its file and line, whichever it is, and no other line is accused."""
    alter(path, lambda lines: [*lines[: number - 1], lines[number - 1].replace(b"deny", b"ally"), *lines[number:]])
    assert damage(path.parent) == [f"orders.jsonl:{number}: changed: its bytes do not have its hash"]


@pytest.mark.parametrize("number", range(1, ALL))
def test_a_line_that_was_written_anew_with_its_hash_is_named(path: Path, number: int):
    """Its own hash fits, but the next line and the checkpoints remember another."""

    def anew(lines: Lines) -> Lines:
        content = json.loads(lines[number - 1])
        for name in ("number", "hash"):
            del content[name]
        prev = content.pop("prev")
        lines[number - 1], _ = chain.write(number, prev, {**content, "principal": "somebody else"})
        return lines

    alter(path, anew)
    assert f"orders.jsonl:{number}: replaced: number {number + 1}" in said(path)


@pytest.mark.parametrize("number", range(1, ALL))
def test_a_removed_line_is_named(path: Path, number: int):
    alter(path, lambda lines: [*lines[: number - 1], *lines[number:]])
    assert f"orders.jsonl:{number}: line {number} was removed before it" in said(path)


def test_lines_that_changed_places_are_named(path: Path):
    def swapped(lines: Lines) -> Lines:
        lines[3], lines[4] = lines[4], lines[3]
        return lines

    alter(path, swapped)
    assert "orders.jsonl:4: line 4 was removed before it (it is number 5)" in said(path)
    assert "orders.jsonl:5: out of place: it is number 4 and stands behind number 5" in said(path)


def test_a_line_put_in_is_named(path: Path):
    """A copy of another, an invented one that fits its predecessor, and something that is no line."""
    whole = path.read_bytes()
    alter(path, lambda lines: [*lines[:5], lines[1], *lines[5:]])
    assert damage(path.parent) == ["orders.jsonl:6: out of place: it is number 2 and stands behind number 5"]
    path.write_bytes(whole)
    forged, _ = chain.write(6, json.loads(whole.splitlines()[4])["hash"], {"decision": "allow"})
    alter(path, lambda lines: [*lines[:5], forged, *lines[5:]])
    assert "orders.jsonl:6: not the line that a checkpoint" in said(path) or "orders.jsonl:6: replaced" in said(path)
    path.write_bytes(whole)
    alter(path, lambda lines: [*lines[:5], b"half a li\n", *lines[5:]])
    assert damage(path.parent) == ["orders.jsonl:6: not a line of this log: changed or put in"]


@pytest.mark.parametrize("left", range(SIGNED))
def test_a_tail_that_was_cut_off_is_found_up_to_the_checkpoint(path: Path, left: int):
    """Whatever is left of the log, down to an empty file."""
    alter(path, lambda lines: lines[:left])
    assert f"orders.jsonl:{left}: cut off: lines {left + 1} to {SIGNED} once stood behind it" in said(path)


def test_a_tail_cut_off_inside_a_line_is_no_crash_where_a_checkpoint_knows_better(path: Path):
    """The half line looks like a crash; that the line was signed says that it was whole."""
    alter(path, lambda lines: [*lines[:6], lines[6][:40]])
    assert f"cut off: lines 7 to {SIGNED} once stood behind it" in said(path)


def test_a_removed_log_is_found(path: Path):
    path.unlink()
    assert said(path) == f"orders.jsonl:0: cut off: lines 1 to {SIGNED} once stood behind it"


def test_a_past_written_anew_from_its_first_line_is_found(path: Path):
    """All hashes fit each other; the signature is for other ones."""
    path.unlink()
    log = AuditLog(path, clock=ManualClock(), per_window=100)
    for number in range(ALL):
        log.write("call", "allow", principal="ads", action="Payments.charge", reason=f"reason {number}")
    log.close()
    assert f"orders.jsonl:{SIGNED}: not the line that a checkpoint holds the hash of" in said(path)


def test_a_log_under_the_name_of_another_is_found(path: Path):
    path.rename(path.with_name("payments.jsonl"))
    assert "payments.jsonl:1: the first line of another log than 'payments'" in said(path)


def test_the_oldest_file_cannot_be_removed_unseen(tmp_path: Path):
    """Rotation drops files and says so; whoever drops one more is found."""
    path = tmp_path / "audit" / "orders.jsonl"
    log = unbounded(path, bytes_max=5000, files_max=3)
    fill(log, 100)
    sign(tmp_path, log)
    log.close()
    assert findings(path.parent) == []
    path.with_name("orders.jsonl.2").unlink()
    assert "were removed before it" in said(path)
    path.with_name("orders.jsonl.1").unlink()
    assert "were removed before it" in said(path)


def test_a_quick_look_finds_what_was_done_to_the_newest_file(tmp_path: Path):
    """And accuses nobody of what stands in older ones."""
    path = tmp_path / "audit" / "orders.jsonl"
    log = unbounded(path, bytes_max=5000, files_max=3)
    fill(log, 100)
    sign(tmp_path, log)
    log.close()
    assert not any(report.findings for report in verify(path.parent, files_max=1))
    alter(path, lambda lines: lines[:-1])
    assert [each.name for each in verify(path.parent, files_max=1) if each.damaged] == ["orders"]


def test_a_checkpoint_cannot_be_altered_or_removed(path: Path):
    """They are a chained log themselves, and signed."""
    signed = path.with_name("checkpoints.jsonl")
    alter(signed, lambda lines: [lines[0].replace(b'"lines": 8', b'"lines": 6')])
    assert "checkpoints.jsonl:1: changed" in said(path)
    assert "a checkpoint whose signature does not hold" in said(path)


def test_another_key_is_not_believed(path: Path, tmp_path: Path):
    """Everything made anew with another key: the fingerprint that was kept elsewhere does not fit."""
    public = load_public(path.parent)
    assert public is not None
    kept = fingerprint(public)
    assert not any(report.damaged for report in verify(path.parent, fingerprint=kept))
    (tmp_path / "identity" / "audit.key").unlink()
    AuditKey(tmp_path / "identity", path.parent)
    with pytest.raises(AuditError, match="signed by somebody else"):
        verify(path.parent, fingerprint=kept)
    assert "signature does not hold" in said(path)


def test_heads_kept_elsewhere_find_what_the_folder_cannot(path: Path):
    """The log and its checkpoints cut off alike, by somebody who has the key: only the kept head tells."""
    heads = [report.head for report in verify(path.parent) if report.head is not None]
    alter(path, lambda lines: lines[:4])
    path.with_name("checkpoints.jsonl").unlink()
    assert damage(path.parent) == []
    found = [str(each) for report in verify(path.parent, kept=heads) for each in report.findings]
    assert f"orders.jsonl:4: cut off: lines 5 to {ALL} once stood behind it" in found


def test_a_log_that_goes_back_gets_no_checkpoint(path: Path, tmp_path: Path):
    """The supervisor signs no second past of a workload."""
    folder = path.parent
    known = checkpoints(folder).newest()
    kept = Checkpoints(folder, AuditKey(tmp_path / "identity", folder), ManualClock(), known)
    assert "was at line 8 before" in kept.add(Written("orders", 5, "00" * 32))
    assert "was at line 8 before" in kept.add(Written("orders", 8, "00" * 32))
    assert kept.add(known["orders"]) == ""
    kept.close()


def test_a_quiet_log_keeps_its_checkpoint_beside_a_busy_one(tmp_path: Path):
    """However often the checkpoints' own files are rotated."""
    folder = tmp_path / "audit"
    kept = Checkpoints(folder, AuditKey(tmp_path / "identity", folder), ManualClock(), {})
    kept._log._bytes_max = 10_000  # pyright: ignore[reportPrivateUsage]
    assert kept.add(Written("quiet", 3, "ab" * 32)) == ""
    for number in range(1, 200):
        assert kept.add(Written("busy", number, f"{number:064x}")) == ""
    kept.close()
    assert len(list(folder.glob("checkpoints.jsonl*"))) == 4
    signed = checkpoints(folder)
    assert signed.newest() == {"quiet": Written("quiet", 3, "ab" * 32), "busy": Written("busy", 199, f"{199:064x}")}
    assert signed.report.findings == []


def test_any_altered_byte_is_found(path: Path):
    """A byte anywhere in the folder's logs becomes another; its line or the next one is named."""
    lot = random.Random(7)
    for file in (path, path.with_name("checkpoints.jsonl")):
        whole = file.read_bytes()
        for place in [*lot.sample(range(len(whole)), 400), len(whole) - 1]:
            altered = bytearray(whole)
            altered[place] = lot.choice([value for value in range(256) if value != whole[place]])
            file.write_bytes(altered)
            number = whole.count(b"\n", 0, place) + 1
            found = findings(path.parent)
            named = {each.line for each in found if each.file == file.name}
            assert named & {number, number + 1}, (file.name, place, found)
            if whole[place:] != b"\n":  # at the very end of all, a lost newline is what a crash leaves
                assert not all(each.crash for each in found), (file.name, place, found)
        file.write_bytes(whole)


def test_garbage_ends_nothing(path: Path):
    """Files of noise, deep nesting, numbers as texts: findings, no exception."""
    lot = random.Random(11)
    for content in (
        lot.randbytes(5000), b"[" * 100_000 + b"\n", b"{}\n" * 50, b"null\n",
        b'{"number": "1", "prev": 2, "hash": []}\n',
        b'{"number": 1, "prev": "", "hash": "", "action": "recover", "torn": 5}\n', b"\n\n\n",
    ):  # fmt: skip
        for file in (path, path.with_name("checkpoints.jsonl")):
            before = file.read_bytes()
            file.write_bytes(content)
            assert damage(path.parent)
            file.write_bytes(before)


WRITER = """
import sys
from pathlib import Path
from seamline.kernel.audit import AuditLog
log = AuditLog(Path(sys.argv[1]), bytes_max=40_000, per_window=10**9, total_per_window=10**9)
print("ready", flush=True)
number = 0
while True:
    number += 1
    log.write("call", "deny", principal="ads", action="x" * (number % 400), reason=str(number))
    if log.written.number % 50 == 0:
        print(log.written.number, flush=True)
"""


def test_killed_at_any_time_the_chain_goes_on(tmp_path: Path):
    """SIGKILL again and again, at different lines: no written line is lost, and nothing looks like tampering."""
    path = tmp_path / "audit" / "orders.jsonl"
    lot = random.Random(3)
    reached = 0
    for _ in range(12):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(lot.randrange(1, 12)):
                told = process.stdout.readline().strip()
                reached = int(told) if told.isdigit() else reached
            process.send_signal(signal.SIGKILL)
        assert damage(path.parent) == []
        head = next(report.head for report in verify(path.parent) if report.name == "orders")
        assert head is not None
        assert head.number >= reached


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_a_half_written_line_is_told_from_tampering(path: Path, share: float):
    """The bytes of a dying write, cut anywhere: the next writer names them, and the verifier knows them for a crash."""
    raw, _ = chain.write(ALL + 1, "0" * 64, {"principal": "somebody"})
    torn = raw[: int((len(raw) - 2) * share)]
    with path.open("ab") as file:
        file.write(torn)
    assert damage(path.parent) == []
    log = unbounded(path)
    fill(log, 3)
    log.close()
    assert damage(path.parent) == []
    assert [(each.line, each.crash) for each in findings(path.parent)] == ([(ALL + 1, True)] if torn else [])
    assert len(path.read_bytes().splitlines()) == ALL + 3 + (2 if torn else 0)
