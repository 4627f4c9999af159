"""Who answers the calls of one contract: each version's share, and who is only asked for comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from seamline.kernel.settings import ContractModelSettings
from seamline.models.rollout.errors import BadSplitError, UnknownVersionError


class Split(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A split in force. ``revision`` orders splits: a process never goes back to an older one."""

    champion: str
    """The version that the others are compared with."""
    weights: dict[str, float]
    """Version to its share; together 1."""
    shadow: list[str] = []
    revision: int = 0

    @property
    def canaries(self) -> list[str]:
        """Versions that answer some calls, and are not the champion."""
        return [version for version, share in self.weights.items() if share > 0 and version != self.champion]

    def to_json(self) -> dict[str, Any]:
        return msgspec.to_builtins(self)


def make_split(
    weights: Mapping[str, float], champion: str = "", shadow: Sequence[str] = (), revision: int = 0
) -> Split:
    """Shares of any sum, brought to 1. The champion is the one with the most unless it is named.

    Raises BadSplitError.
    """
    if not weights or any(not math.isfinite(share) or share < 0 for share in weights.values()):
        raise BadSplitError(f"the shares are {dict(weights)}", "Numbers of zero or more, such as minilm-2=10.")
    total = math.fsum(weights.values())
    if total <= 0:
        raise BadSplitError("the shares add up to nothing", "Give one version at least a share.")
    leader = champion or max(weights, key=lambda version: weights[version])
    shares = {version: share / total for version, share in weights.items() if share > 0}
    return Split(champion=leader, weights=shares, shadow=[*dict.fromkeys(shadow)], revision=revision)


def default_split(settings: ContractModelSettings, declared: Sequence[str]) -> Split:
    """What holds while nobody has said anything else: the settings, or all for the first that is declared."""
    weights = {version: share for version, share in settings.weights.items() if version in declared and share > 0}
    return make_split(weights or {declared[0]: 1.0}, shadow=[each for each in settings.shadow if each in declared])


def with_shares(split: Split, given: Mapping[str, float]) -> Split:
    """Some versions get these shares (of 1), the champion the rest. Raises BadSplitError."""
    taken = math.fsum(share for version, share in given.items() if version != split.champion)
    if any(not 0 <= share <= 1 for share in given.values()) or taken > 1 + 1e-9:
        raise BadSplitError(f"the shares are {dict(given)}", "Each from 0 to 100 %, and together not more.")
    if split.champion in given and abs(given[split.champion] + taken - 1) > 1e-6:
        return make_split(given, split.champion, split.shadow)
    return make_split({split.champion: max(1 - taken, 0.0), **given}, split.champion, split.shadow)


def promoted(split: Split, version: str) -> Split:
    """That version answers all, and the others are compared with it from now on."""
    shadow = [each for each in split.shadow if each != version]
    return Split(champion=version, weights={version: 1.0}, shadow=shadow)


def without_canaries(split: Split) -> Split:
    """The champion answers all."""
    return Split(champion=split.champion, weights={split.champion: 1.0}, shadow=split.shadow)


def checked(split: Split, contract: str, declared: Sequence[str]) -> Split:
    """The same split, if all of its versions are declared. Raises UnknownVersionError."""
    for version in (split.champion, *split.weights, *split.shadow):
        if version not in declared:
            raise UnknownVersionError(
                f"{contract} has no version {version!r}", f"It has {', '.join(declared) or 'none'}."
            )
    return split


def parse_shares(given: Sequence[str]) -> dict[str, float]:
    """``["minilm-2=10", "minilm-3=5%"]`` in percent, as shares of 1. Raises BadSplitError."""
    shares: dict[str, float] = {}
    for text in given:
        version, _, number = text.rpartition("=")
        try:
            share = float(number.removesuffix("%")) / 100
        except ValueError:
            share = math.nan
        if not version or version in shares or not 0 <= share <= 1:
            raise BadSplitError(f"{text!r} is no share", "Write VERSION=PERCENT, such as minilm-2=10.")
        shares[version] = share
    return shares
