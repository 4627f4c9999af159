"""The supervisor's end of the audit: it signs how far every log has come, and looks at a start what became of them.

A worker says how far its log is; it cannot go back, and it signs nothing itself. So whoever breaks into a workload may
write lies from then on, and cannot alter what was written before.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from seamline.kernel.audit import AuditLog, Written
from seamline.kernel.clock import Clock
from seamline.kernel.errors import SeamlineError
from seamline.kernel.settings import Settings
from seamline.kernel.signal import log

if TYPE_CHECKING:
    from seamline.kernel.audit.checkpoints import Checkpoints
    from seamline.run.control import Audited

_log = log.get("seamline.run")
AUDIT_FOLDER = Path("audit")
_SAID_MAX = 20


class Auditing:
    """Signs checkpoints for the logs of an application.

    Args:
        logs: this process's own. The first is where findings are written.
    """

    def __init__(self, settings: Settings, data: Path, clock: Clock, *logs: AuditLog) -> None:
        self._settings = settings
        self._data = data
        self._clock = clock
        self._logs = logs
        self._checkpoints: Checkpoints | None = None
        self._early: list[Written] = []
        self._policy = ""

    async def run(self) -> None:
        """Look at what is there, then sign what is new, until cancelled."""
        try:
            self._checkpoints = await asyncio.to_thread(self._open)
        except (SeamlineError, OSError) as error:
            _log.error("the audit gets no checkpoints: %s", error)  # a fact, no traceback
            return
        for written in self._early:
            self._add(written)
        await self.note_policy(self._settings)
        while True:
            await asyncio.sleep(self._settings.audit.checkpoint_s)
            self._sign_own()
            await asyncio.to_thread(self._checkpoints.sync)

    def _open(self) -> Checkpoints:
        # These load the cryptography library, which takes a tenth of a second.
        from seamline.kernel.audit.checkpoints import Checkpoints
        from seamline.kernel.audit.key import AuditKey
        from seamline.kernel.audit.verify import checkpoints, verify

        folder = self._data / AUDIT_FOLDER
        key = AuditKey(self._data / "identity", folder, self._settings.identity.passphrase)
        # Of what is older `seamline audit verify` speaks: a start must not take longer the longer the past is.
        damaged = [report for report in verify(folder, files_max=1) if report.damaged]
        findings = [finding for report in damaged for finding in report.findings if not finding.crash]
        for finding in findings[:_SAID_MAX]:
            _log.error("the audit was altered: %s", finding)
            self._logs[0].write(
                "audit", "fail", principal="supervisor", action="verify", resource=finding.file, reason=str(finding)
            )
        if len(findings) > _SAID_MAX:
            _log.error("the audit was altered in %d places: see `seamline audit verify`", len(findings))
        return Checkpoints(folder, key, self._clock, checkpoints(folder, files_max=2).newest())

    def hear(self, message: Audited, name: str) -> None:
        """What the worker whose log is called ``name`` says."""
        if message.log != name and not message.log.startswith(f"{name}~"):
            self._refuse(name, f"{name!r} spoke of the audit {message.log!r}, which is not its own")
            return
        self._add(Written(message.log, message.lines, message.head))

    async def note_policy(self, settings: Settings) -> None:
        """A line of audit if the policy is another than when it was last looked at."""
        digest = await asyncio.to_thread(_policy_digest, settings)
        before, self._policy = self._policy, digest
        if digest != before:
            self._logs[0].write(
                "policy", "allow", principal="supervisor", action="change" if before else "load",
                resource=settings.app.policy, always=True, before=before, after=digest,
            )  # fmt: skip

    def heads(self) -> list[Written]:
        """The newest checkpoints, from memory: whoever alters files does not alter these."""
        if self._checkpoints is None:
            return []
        self._sign_own()
        return sorted(self._checkpoints.newest.values())

    def finish(self) -> None:
        """Sign the last lines and close."""
        for each in self._logs:
            each.flush()
        if self._checkpoints is not None:
            self._sign_own()
            self._checkpoints.close()
        for each in self._logs:
            each.close()

    def _sign_own(self) -> None:
        for each in self._logs:
            if (written := each.written) is not None:
                self._add(written)

    def _add(self, written: Written) -> None:
        if self._checkpoints is None:
            self._early.append(written)
        elif reason := self._checkpoints.add(written):
            self._refuse(written.log, reason)

    def _refuse(self, name: str, reason: str) -> None:
        _log.error("the audit of %s gets no checkpoint: %s", name, reason)
        self._logs[0].write(
            "audit", "refuse", principal=name, action="checkpoint", resource=name, reason=f"not its own past: {reason}"
        )


def _policy_digest(settings: Settings) -> str:
    """SHA-256 over the names and texts of the policy in force; empty where it cannot be read."""
    from seamline.mesh.policy.sources import policy_source  # Cedar is heavy, and the supervisor does without it

    try:
        texts = policy_source(settings)().current
    except SeamlineError:
        return ""
    return hashlib.sha256(json.dumps(sorted(texts.items())).encode()).hexdigest()
