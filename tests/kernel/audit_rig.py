"""Folders of audit logs that tests write, sign and damage."""

from __future__ import annotations

from pathlib import Path

from seamline.kernel.audit import AuditLog
from seamline.kernel.audit.checkpoints import Checkpoints
from seamline.kernel.audit.key import AuditKey
from seamline.kernel.audit.verify import Finding, checkpoints, verify
from seamline.kernel.clock import ManualClock

UNBOUNDED = {"per_window": 10**9, "total_per_window": 10**9}


def unbounded(path: Path, *, bytes_max: int = 8 << 20, files_max: int = 4) -> AuditLog:
    return AuditLog(
        path, clock=ManualClock(), bytes_max=bytes_max, files_max=files_max, per_window=10**9, total_per_window=10**9
    )


def fill(log: AuditLog, count: int, begin: int = 0) -> None:
    for number in range(begin, begin + count):
        assert log.write("call", "deny", principal="ads", action="Payments.charge", reason=f"reason {number}")


def sign(root: Path, *logs: AuditLog) -> None:
    """A checkpoint of what each of the logs in ``root/audit`` has now."""
    folder = root / "audit"
    key = AuditKey(root / "identity", folder)
    kept = Checkpoints(folder, key, ManualClock(), checkpoints(folder).newest())
    for log in logs:
        assert log.written is not None
        assert kept.add(log.written) == ""
    kept.close()


def findings(folder: Path) -> list[Finding]:
    """All of them, of all logs."""
    return [each for report in verify(folder) for each in report.findings]


def damage(folder: Path) -> list[str]:
    """What is somebody's doing."""
    return [str(each) for each in findings(folder) if not each.crash]
