"""What all processes have counted, put together; and how sure one may be that two versions differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from seamline.models.rollout.guard import Seen
from seamline.models.rollout.route import Compared, Counts
from seamline.models.rollout.sequential import Moments, compare_means
from seamline.models.rollout.split import Split

ALPHA: Final = 0.05
_SAMPLES: Final = 10


class Part(msgspec.Struct, kw_only=True):
    """What one process says of a contract: :meth:`Rollout.stats`, as JSON."""

    module: str
    split: Split
    key: str
    versions: dict[str, Counts]
    shadow: dict[str, Compared]
    guard: list[Seen]


def report(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """By contract; for JSON. Of processes that are behind, whose split is older, nothing is counted."""
    found: dict[str, list[Part]] = {}
    for each in parts:
        for contract, told in each.items():
            found.setdefault(contract, []).append(msgspec.convert(told, Part))
    return {contract: _report(told) for contract, told in sorted(found.items())}


def _report(parts: list[Part]) -> dict[str, Any]:
    newest = max(parts, key=lambda each: each.split.revision)
    parts = [each for each in parts if each.split.revision == newest.split.revision]
    counts = {version: _counts(parts, version) for version in newest.versions}
    champion = counts.get(newest.split.champion, Counts())
    return {
        "module": newest.module,
        "split": newest.split.to_json(),
        "key": newest.key,
        "versions": {
            version: {
                "share": newest.split.weights.get(version, 0.0),
                "role": _role(newest.split, version),
                **_shown(each),
                "beside_champion": {} if version == newest.split.champion else _beside(champion, each),
            }
            for version, each in counts.items()
        },
        "shadow": {version: _compared(parts, version) for version in newest.shadow},
        "guard": [msgspec.to_builtins(each) for part in parts for each in part.guard],
    }


def _role(split: Split, version: str) -> str:
    if version == split.champion:
        return "champion"
    if version in split.canaries:
        return "canary"
    return "shadow" if version in split.shadow else ""


def _counts(parts: list[Part], version: str) -> Counts:
    whole = Counts()
    for each in parts:
        if (told := each.versions.get(version)) is not None:
            whole.calls += told.calls
            whole.errors += told.errors
            whole.seconds = whole.seconds.merged(told.seconds)
            whole.quality = whole.quality.merged(told.quality)
    return whole


def _compared(parts: list[Part], version: str) -> dict[str, Any]:
    whole = Compared()
    for each in parts:
        if (told := each.shadow.get(version)) is not None:
            whole.same += told.same
            whole.different += told.different
            whole.errors += told.errors
            whole.seconds = whole.seconds.merged(told.seconds)
            whole.ours_seconds = whole.ours_seconds.merged(told.ours_seconds)
            whole.samples = [*whole.samples, *told.samples][-_SAMPLES:]
    return {
        "same": whole.same,
        "different": whole.different,
        "errors": whole.errors,
        "ms": round(whole.seconds.mean * 1000, 3),
        "ours_ms": round(whole.ours_seconds.mean * 1000, 3),
        "samples": [msgspec.to_builtins(each) for each in whole.samples],
    }


def _shown(counts: Counts) -> dict[str, Any]:
    return {
        "calls": counts.calls,
        "errors": counts.errors,
        "ms": round(counts.seconds.mean * 1000, 3) if counts.seconds.count else None,
        "quality": round(counts.quality.mean, 4) if counts.quality.count else None,
        "scores": counts.quality.count,
    }


def _beside(champion: Counts, other: Counts) -> dict[str, Any]:
    """Differences from the champion, each with an interval and a probability that hold at any time."""
    pairs = {
        "errors": (_share(champion), _share(other)),
        "ms": (_scaled(champion.seconds), _scaled(other.seconds)),
        "quality": (champion.quality, other.quality),
    }
    compared = {name: compare_means(*pair, alpha=ALPHA) for name, pair in pairs.items()}
    return {name: each._asdict() for name, each in compared.items() if each is not None}


def _share(counts: Counts) -> Moments:
    """Errors as numbers: one or zero."""
    if not counts.calls:
        return Moments()
    mean = counts.errors / counts.calls
    return Moments(counts.calls, mean, counts.calls * mean * (1 - mean))


def _scaled(seconds: Moments) -> Moments:
    return Moments(seconds.count, seconds.mean * 1000, seconds.squares * 1e6)
