"""What can be wrong with an audit.

AuditError  SL4700  its key does not open, or is not the one that was named
"""

from __future__ import annotations

from typing import ClassVar

from seamline.kernel.errors import SeamlineError


class AuditError(SeamlineError):
    """The audit's key does not open, is damaged, or is not the one whose fingerprint was given."""

    code: ClassVar[str] = "SL4700"
