"""Faults injected by rule, for tests of what a system does when a part of it fails."""

from __future__ import annotations

import asyncio
import random
from time import monotonic

from seamline.kernel.settings import MeshRules
from seamline.mesh.outcome import deadline_exceeded
from seamline.module.errors import (
    CallError,
    DeadlineExceeded,
    InternalError,
    Overloaded,
    PermissionDenied,
    Unavailable,
)

_INJECTABLE: dict[str, type[CallError]] = {
    cls.connect: cls for cls in (Unavailable, DeadlineExceeded, InternalError, Overloaded, PermissionDenied)
}


def injects(rules: MeshRules) -> bool:
    """Whether calls under these rules may be tampered with."""
    return bool(rules.inject_delay_percent or rules.inject_error_percent or rules.inject_drop_percent)


async def inject(rules: MeshRules, method: str, deadline: float) -> None:
    """Delay, drop or fail one call, as the lot falls."""
    if rules.inject_delay_ms > 0 and random.random() * 100 < rules.inject_delay_percent:
        await _pause(rules.inject_delay_ms / 1000, method, deadline)
    if random.random() * 100 < rules.inject_drop_percent:
        await _pause(float("inf"), method, deadline)
    if rules.inject_error not in ("", "crash") and random.random() * 100 < rules.inject_error_percent:
        cls = _INJECTABLE.get(rules.inject_error, InternalError)
        raise cls(f"{method} failed by an injected fault", "Remove the rule: `seamline inject --clear`.")


async def _pause(seconds: float, method: str, deadline: float) -> None:
    left = deadline - monotonic()
    if seconds < left:
        await asyncio.sleep(seconds)
        return
    await asyncio.sleep(max(left, 0.0))
    raise deadline_exceeded(method)
