"""What a process has seen of a canary beside its champion, and when all that processes have seen is enough."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from seamline.kernel.settings import ModelGuardSettings
from seamline.models.rollout.sequential import Evidence
from seamline.models.rollout.split import Split

Watched = Literal["errors", "latency", "quality"]
_BOUNDS: Final = tuple(1e-6 * 1.05**step for step in range(400))
"""A twentieth between two bounds, from a microsecond to minutes."""
_QUANTILE: Final = 0.9
_AGAIN: Final = 32


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What one process has seen of one canary, in one respect, since the split came into force."""

    contract: str
    revision: int
    canary: str
    watched: Watched
    log: float
    """The logarithm of the evidence that it is worse."""
    calls: int
    bad: float
    champion_calls: int
    champion_bad: float


class Slowness:
    """Which calls of a method are slow: as nine in ten of the champion's are not, and by how much more."""

    __slots__ = ("_bound", "_count", "_counts")

    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS) + 1)
        self._count = 0
        self._bound = math.inf

    def is_slow(self, seconds: float, rise: float) -> bool:
        return seconds > self._bound * (1 + rise)

    def learn(self, seconds: float) -> None:
        """A call of the champion took so long."""
        self._counts[bisect_left(_BOUNDS, seconds)] += 1
        self._count += 1
        if self._count % _AGAIN == 0 or self._count == 10:
            wanted, seen = self._count * _QUANTILE, 0
            for place, count in enumerate(self._counts):
                seen += count
                if seen >= wanted:
                    self._bound = _BOUNDS[min(place, len(_BOUNDS) - 1)]
                    break


class Guard:
    """The evidence of one process about the canaries of one split."""

    def __init__(self, contract: str, split: Split, settings: ModelGuardSettings) -> None:
        self._contract = contract
        self._split = split
        self._rise = settings.latency_rise_ratio
        self._evidence: dict[tuple[str, Watched], Evidence] = {
            (canary, watched): Evidence() for canary in split.canaries for watched in settings.watch
        }
        self._slowness: dict[str, Slowness] = {}
        champion = split.weights.get(split.champion, 0.0)
        self._shares = {canary: split.weights[canary] / (split.weights[canary] + champion) for canary in split.canaries}
        """Of the calls to either of the two, those to the canary."""

    def called(self, version: str, method: str, seconds: float, *, failed: bool) -> None:
        """A version has answered, or has not."""
        self._add(version, "errors", float(failed))
        if failed:
            return
        slowness = self._slowness.get(method)
        if slowness is None:
            slowness = self._slowness[method] = Slowness()
        self._add(version, "latency", float(slowness.is_slow(seconds, self._rise)))
        if version == self._split.champion:
            slowness.learn(seconds)

    def scored(self, version: str, score: float) -> None:
        """An answer was as good as ``score``, 0 to 1."""
        self._add(version, "quality", 1.0 - min(max(score, 0.0), 1.0))

    def _add(self, version: str, watched: Watched, bad: float) -> None:
        if version == self._split.champion:
            for canary, share in self._shares.items():
                evidence = self._evidence.get((canary, watched))
                if evidence is not None:
                    evidence.champion(bad, share)
        elif (evidence := self._evidence.get((version, watched))) is not None:
            evidence.canary(bad, self._shares[version])

    def seen(self) -> list[Seen]:
        """For whoever puts together what all processes have seen."""
        return [
            Seen(
                contract=self._contract,
                revision=self._split.revision,
                canary=canary,
                watched=watched,
                log=each.log,
                calls=each.canary_calls,
                bad=each.canary_bad,
                champion_calls=each.champion_calls,
                champion_bad=each.champion_bad,
            )
            for (canary, watched), each in self._evidence.items()
        ]


class Verdict(msgspec.Struct, frozen=True):
    """A canary is worse."""

    canary: str
    watched: Watched
    said: str
    """In words."""


def judge(split: Split, settings: ModelGuardSettings, seen: Iterable[Seen]) -> Verdict | None:
    """Whether what all processes have seen of a split's canaries is enough to roll it back.

    The evidence of processes multiplies. All canaries and all that is watched share ``alarms_ratio`` (Bonferroni).
    """
    together: dict[tuple[str, Watched], list[Seen]] = {}
    for each in seen:
        if each.revision == split.revision:
            together.setdefault((each.canary, each.watched), []).append(each)
    margins = {"errors": settings.errors_rise_ratio, "latency": 0.0, "quality": settings.quality_fall_ratio}
    enough = math.log(max(len(split.canaries) * len(settings.watch), 1) / settings.alarms_ratio)
    for (canary, watched), found in together.items():
        calls, champion_calls = sum(each.calls for each in found), sum(each.champion_calls for each in found)
        if calls < settings.calls_min or not champion_calls or sum(each.log for each in found) < enough:
            continue
        now = sum(each.bad for each in found) / calls
        before = sum(each.champion_bad for each in found) / champion_calls
        if now - before >= margins[watched]:
            return Verdict(canary, watched, _said(canary, watched, now, before, calls, split.champion))
    return None


def _said(canary: str, watched: Watched, now: float, before: float, calls: int, champion: str) -> str:
    if watched == "errors":
        return f"{canary} fails {now:.1%} of {calls} calls, {champion} {before:.1%}"
    if watched == "latency":
        return f"{canary} is slow in {now:.1%} of {calls} calls, {champion} in {before:.1%}"
    return f"{canary} scores {1 - now:.3f} over {calls} answers, {champion} {1 - before:.3f}"
