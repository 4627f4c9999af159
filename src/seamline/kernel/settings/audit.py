"""``[audit]``: what is written of decisions, and how it is kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """``[audit]``."""

    sensitive: tuple[str, ...] = ()
    """Methods (``Payments.refund``): a call that policy permits is a line, too."""
    checkpoint_s: float = 1
    """How often the supervisor signs how far each log has come."""
    files_max: int = 4
    """Files of 8 MiB kept of each log, at least 2."""
