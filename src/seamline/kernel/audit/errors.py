"""What can be wrong with an audit.

AuditError          SL4700  an audit cannot be read, or was asked something that it does not have
  AuditDamagedError SL4701  a line was changed, removed, put in or cut off
"""

from __future__ import annotations

from typing import ClassVar

from seamline.kernel.errors import SeamlineError


class AuditError(SeamlineError):
    """The audit cannot be read, its key is not the one named, or a time or file given for it makes no sense."""

    code: ClassVar[str] = "SL4700"


class AuditDamagedError(AuditError):
    """The audit's chain of hashes, or a signed checkpoint, does not fit its lines: somebody has altered them.

    ``seamline audit verify`` names each file and line. Keep the data directory as it is, and compare it with a backup
    and with heads kept elsewhere (``seamline audit heads``).
    """

    code: ClassVar[str] = "SL4701"
