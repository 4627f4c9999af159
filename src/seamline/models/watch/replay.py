"""What today's model and rules would have decided: a module tells what it decided once, and decides it again.

::

    @module.replays(Fraud)
    class FraudReplay:
        def __init__(self, book: Book) -> None: ...

        async def past(self, since: datetime, most: int) -> Sequence[Past]: ...

        async def again(self, past: Past, today: Today) -> Decided | None: ...

Nothing is called to decide but the model, and nothing that is decided again has an effect: that is the class's to keep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from seamline.models.watch.errors import ReplayError

MOST: Final = 5_000
"""Decisions that one replay looks at, the newest."""
SHOWN: Final = 500
"""Of those that would be another, how many are told one by one."""
_SAID_EVERY: Final = 100
_TEXT_MAX: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """Something that was decided."""

    id: str
    at: datetime
    verdict: str
    by: str = ""
    """Which versions of what decided it."""
    score: float | None = None
    basis: Any = None
    """What it takes to decide it again; told to nobody. None where it is not kept any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What would be decided today."""

    verdict: str
    why: str = ""
    score: float | None = None
    changed_by: str = ""
    """What made it another: ``model``, ``policy``, or what the module calls it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Today:
    """By what is to be decided."""

    model: Any
    """The contract, answered by ``version``."""
    version: str
    policy: Mapping[str, str] = field(default_factory=dict[str, str])
    """Texts by their files' names, that stand for the module's own rules; empty for its own."""


class Replayer(Protocol):
    """See :meth:`seamline.Module.replays`."""

    async def past(self, since: datetime, most: int) -> Sequence[Past]:
        """What was decided since then: the newest ``most``, the newest first."""
        ...

    async def again(self, past: Past, today: Today) -> Decided | None:
        """What would be decided today, from what was known then; None where that cannot be said."""
        ...


async def replay(
    replayer: Replayer, today: Today, since: datetime, say: Callable[[str], Any], *, most: int = MOST
) -> dict[str, Any]:
    """Decide again; for JSON. ``same``, ``unknown`` and the numbers of ``changes`` make ``decided``.

    Raises:
        ReplayError: it cannot be decided by what is to decide.
    """
    found = await replayer.past(since, most)
    same = unknown = 0
    changes: dict[str, dict[str, int]] = {}
    cases: list[dict[str, Any]] = []
    for number, past in enumerate(found):
        if number % _SAID_EVERY == 0:
            await say(f"{number:,} of {len(found):,} decided again")
        try:
            now = None if past.basis is None else await replayer.again(past, today)
        except Exception as error:  # of the module's code, or of a policy that is tried
            raise ReplayError(
                f"{past.id!r} cannot be decided again: {type(error).__name__}: {str(error)[:_TEXT_MAX]}",
                "Look at the model, and at the policy that is tried.",
            ) from error
        if now is None:
            unknown += 1
        elif now.verdict == past.verdict:
            same += 1
        else:
            became = changes.setdefault(past.verdict, {})
            became[now.verdict] = became.get(now.verdict, 0) + 1
            if len(cases) < SHOWN:
                cases.append(_told(past, now))
    return {
        "version": today.version,
        "policy": digest(today.policy),
        "since": since.isoformat(),
        "decided": len(found),
        "left_out": len(found) == most,
        "same": same,
        "unknown": unknown,
        "changes": changes,
        "cases": cases,
    }


def digest(policy: Mapping[str, str]) -> str:
    """Names a policy that was tried; empty for the module's own."""
    if not policy:
        return ""
    return hashlib.sha256("\0".join(f"{name}\0{policy[name]}" for name in sorted(policy)).encode()).hexdigest()[:12]


def _told(past: Past, now: Decided) -> dict[str, Any]:
    return {
        "id": past.id[:_TEXT_MAX], "at": past.at.isoformat(), "before": past.verdict, "after": now.verdict,
        "by": past.by, "why": now.why[:_TEXT_MAX], "score_before": past.score, "score_after": now.score,
        "changed_by": now.changed_by,
    }  # fmt: skip
