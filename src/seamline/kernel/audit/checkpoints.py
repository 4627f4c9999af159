"""How far each log had come, signed and kept by who watches over the writers.

A log's own chain shows a change in its middle. That its end was cut off shows only here: the checkpoint says which
lines there were. The checkpoints are a log of their own, which holds the newest of every log in its newest file.
"""

from __future__ import annotations

from pathlib import Path

from seamline.kernel.audit.key import Signer, statement
from seamline.kernel.audit.log import AuditLog, Written, iso
from seamline.kernel.clock import Clock

CHECKPOINTS = "checkpoints"


class Checkpoints:
    """Signs and keeps checkpoints in ``folder``. Opened by one process at a time, the supervisor.

    Args:
        known: the newest checkpoint of every log, as they were read from the folder.
    """

    def __init__(self, folder: Path, signer: Signer, clock: Clock, known: dict[str, Written]) -> None:
        self.newest = dict(known)
        self._signer = signer
        self._clock = clock
        self._log = AuditLog(folder / f"{CHECKPOINTS}.jsonl", clock=clock, per_window=1 << 30, total_per_window=1 << 30)

    def add(self, found: Written) -> str:
        """Sign it. Returns why not, if the log has gone back or is no longer the one that it was."""
        last = self.newest.get(found.log)
        if last is not None and found.number <= last.number:
            if found == last:
                return ""
            return f"{found.log!r} is at line {found.number}, and was at line {last.number} before"
        self.newest[found.log] = found
        self._write(found)
        return ""

    def _write(self, found: Written) -> None:
        before = self._log.rotations
        self._sign(found)
        if self._log.rotations != before:  # a log that is quiet must not lose its checkpoint to a busy one
            for each in self.newest.values():
                self._sign(each)

    def _sign(self, found: Written) -> None:
        at = iso(self._clock.now())
        self._log.write(
            "audit",
            "allow",
            principal="supervisor",
            action="checkpoint",
            resource=found.log,
            lines=found.number,
            head=found.head,
            at=at,
            key=self._signer.fingerprint,
            signature=self._signer.sign(statement(found, at)).hex(),
        )

    def sync(self) -> None:
        self._log.sync()

    def close(self) -> None:
        self._log.close()
