"""The split at work in one process: it says which version answers, and counts what came of it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import random
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Final, cast

import msgspec

from seamline.kernel.settings import ContractModelSettings, ModelsSettings
from seamline.models.rollout.compare import Compare, Sample, comparison, shown
from seamline.models.rollout.guard import Guard, Seen
from seamline.models.rollout.sequential import Moments
from seamline.models.rollout.split import Split, default_split
from seamline.models.runtime import Asked, Outcome
from seamline.module.context import current
from seamline.module.contract import compile_contract
from seamline.module.values import Fault

_log = logging.getLogger("seamline.models")
_SAMPLES: Final = 10
_TO_UNIT: Final = 2.0**-64
_IN_PROCESS: Final[weakref.WeakSet[Rollout]] = weakref.WeakSet()


class Counts(msgspec.Struct, kw_only=True):
    """What one version did in one process since the split came into force."""

    calls: int = 0
    errors: int = 0
    seconds: Moments = msgspec.field(default_factory=Moments)
    quality: Moments = msgspec.field(default_factory=Moments)


class Compared(msgspec.Struct, kw_only=True):
    """What a shadow said beside the version that answered."""

    same: int = 0
    different: int = 0
    errors: int = 0
    seconds: Moments = msgspec.field(default_factory=Moments)
    ours_seconds: Moments = msgspec.field(default_factory=Moments)
    samples: list[Sample] = msgspec.field(default_factory=list[Sample])
    """The last of those that differed."""


class _Contract:
    """One contract that has several versions here."""

    def __init__(
        self, contract: type[Any], versions: Sequence[str], settings: ContractModelSettings, compare: Compare | None
    ) -> None:
        self.name = contract.__name__
        self.versions = versions
        self.settings = settings
        self.compare = compare or comparison(settings.compare, settings.tolerance)
        self.places = _places(contract, settings.key)
        self.set(default_split(settings, versions))

    def set(self, split: Split) -> None:
        """A split that is in force from now on: what is counted begins anew."""
        self.split = split
        declared = {version: split.weights[version] for version in self.versions if split.weights.get(version, 0) > 0}
        if not declared:
            _log.warning("none of the versions of %s that are to answer exists: %s does", self.name, self.versions[0])
            declared = {self.versions[0]: 1.0}
        self.shares = declared
        self.only = next(iter(declared)) if len(declared) == 1 else ""
        self.shadow = tuple(version for version in split.shadow if version in self.versions)
        self.counts = {version: Counts() for version in self.versions}
        self.compared = {version: Compared() for version in self.shadow}
        guarded = split.canaries and self.settings.guard.watch
        self.guard = Guard(self.name, split, self.settings.guard) if guarded else None

    def key_of(self, call: Asked) -> str:
        """What keeps to one version; empty for nothing."""
        if self.settings.key == "principal":
            return call.key
        path = self.places.get(call.method)
        if path is None or path[0] >= len(call.arguments):
            return ""
        found: Any = call.arguments[path[0]]
        for name in path[1]:
            found = (
                cast("Mapping[str, Any]", found).get(name) if isinstance(found, Mapping) else getattr(found, name, None)
            )
        return "" if found is None else str(found)


class Rollout:
    """A :class:`~seamline.models.runtime.Route`.

    Args:
        settings: what holds for contracts of which nothing else was said while they run.
        dice: the lot by which calls without a key are given to a version.
        heard: who is told of each score, too: its contract, its version and itself.
    """

    def __init__(
        self,
        settings: ModelsSettings,
        *,
        dice: Callable[[], float] = random.random,
        heard: Callable[[str, str, float], None] | None = None,
    ) -> None:
        self._settings = settings
        self._dice = dice
        self._heard = heard
        self._contracts: dict[str, _Contract] = {}
        self._splits: dict[str, Split] = {}
        _IN_PROCESS.add(self)

    def know(self, contract: type[Any], versions: Sequence[str], compare: Compare | None = None) -> None:
        """A contract is answered here, by these versions."""
        known = _Contract(contract, versions, self._settings.of(contract.__name__), compare)
        self._contracts[known.name] = known
        if known.name in self._splits:
            known.set(self._splits[known.name])

    def apply(self, splits: Mapping[str, Split]) -> None:
        """From now on these hold, where they are newer than what holds."""
        for contract, split in splits.items():
            before = self._splits.get(contract)
            if before is not None and before.revision >= split.revision:
                continue
            self._splits[contract] = split
            known = self._contracts.get(contract)
            if known is not None:
                known.set(split)

    def split(self, contract: str) -> Split | None:
        """What holds for a contract that is answered here."""
        known = self._contracts.get(contract)
        return None if known is None else known.split

    # Route.

    def choose(self, contract: str, call: Asked) -> str:
        """The version that answers: always the same for the same key, while shares change as little as they must."""
        known = self._contracts[contract]
        if known.only:
            return known.only
        key = known.key_of(call) if known.settings.key != "call" else ""
        return _kept(known.shares, contract, key) if key else _drawn(known.shares, self._dice())

    def shadows(self, contract: str, call: Asked) -> Sequence[str]:  # noqa: ARG002  # the protocol's signature
        known = self._contracts[contract]
        if not known.shadow or (known.settings.shadow_ratio < 1 and self._dice() >= known.settings.shadow_ratio):
            return ()
        return known.shadow

    def finished(self, contract: str, version: str, call: Asked, outcome: Outcome) -> None:
        """Count it; what a shadow said is compared with what was answered."""
        known = self._contracts[contract]
        if outcome.primary is not None:
            _compare(known, version, call, outcome, outcome.primary)
            return
        failed = _failed(outcome.error)
        if failed is None:
            return
        counts = known.counts.get(version)
        if counts is not None:
            counts.calls += 1
            counts.errors += failed
            if not failed:
                counts.seconds.add(outcome.seconds)
        if known.guard is not None:
            known.guard.called(version, call.method, outcome.first_s or outcome.seconds, failed=failed)

    # What comes later, and who wants to know.

    def scored(self, contract: str, version: str, score: float) -> None:
        """An answer of a version was as good as ``score``, 0 to 1."""
        if not math.isfinite(score):
            return
        if self._heard is not None:
            self._heard(contract, version, score)
        known = self._contracts.get(contract)
        if known is None or version not in known.counts:
            return
        known.counts[version].quality.add(score)
        if known.guard is not None:
            known.guard.scored(version, score)

    def seen(self, contract: str) -> list[Seen]:
        """Of the canaries of a contract."""
        known = self._contracts.get(contract)
        return [] if known is None or known.guard is None else known.guard.seen()

    def stats(self) -> dict[str, Any]:
        """By contract; for JSON."""
        return {
            name: {
                "split": known.split.to_json(),
                "key": known.settings.key,
                "versions": {version: msgspec.to_builtins(counts) for version, counts in known.counts.items()},
                "shadow": {version: msgspec.to_builtins(found) for version, found in known.compared.items()},
                "guard": [msgspec.to_builtins(each) for each in self.seen(name)],
            }
            for name, known in self._contracts.items()
        }


def scored(contract: str, version: str, score: float) -> None:
    """Tell how good an answer of a version was, 0 to 1: to all that is known of it in this process.

    A canary whose scores are lower than the champion's is rolled back.
    """
    for each in list(_IN_PROCESS):
        each.scored(contract, version, score)


def _places(contract: type[Any], key: str) -> dict[str, tuple[int, list[str]]]:
    """Where the key stands among the arguments of each method: ``argument:request.user_id``."""
    if not key.startswith("argument:"):
        return {}
    first, *rest = key.removeprefix("argument:").split(".")
    found: dict[str, tuple[int, list[str]]] = {}
    for name, spec in compile_contract(contract).methods.items():
        for place, parameter in enumerate(spec.parameters):
            if parameter.name == first:
                found[name] = (place, rest)
    return found


def _kept(shares: Mapping[str, float], contract: str, key: str) -> str:
    """By weighted rendezvous: every version draws a number for the key, and the best wins.

    D. Thaler and C. Ravishankar, 1998, with the weights of C. Schindelhauer and G. Schomaker, 2005. When a share
    grows, keys move to that version only, and none between the others.
    """
    best, chosen = -1.0, ""
    for version, share in shares.items():
        made = hashlib.blake2b(f"{contract}\0{version}\0{key}".encode(), digest_size=8).digest()
        drawn = share / -math.log((int.from_bytes(made, "big") + 0.5) * _TO_UNIT)
        if drawn > best:
            best, chosen = drawn, version
    return chosen


def _drawn(shares: Mapping[str, float], lot: float) -> str:
    for version, share in shares.items():
        lot -= share
        if lot < 0:
            return version
    return next(iter(shares))


def _failed(error: BaseException | None) -> bool | None:
    """Whether a call failed; None when nobody can tell, because its caller went away in time."""
    if error is None or isinstance(error, Fault):  # a fault is an answer
        return False
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        call = current()
        return True if call is not None and call.deadline <= monotonic() else None
    return True


def _compare(known: _Contract, version: str, call: Asked, outcome: Outcome, primary: Outcome) -> None:
    found = known.compared.get(version)
    if found is None:
        return
    if outcome.error is not None and not isinstance(outcome.error, Fault):
        found.errors += 1
        return
    found.seconds.add(outcome.seconds)
    found.ours_seconds.add(primary.seconds)
    if outcome.error is None and (outcome.items or primary.items):
        found.same += 1  # of a stream only that it came
        return
    try:
        same = outcome.error is None and known.compare(primary.answer, outcome.answer)
    except Exception as error:  # a comparison of the application's
        _log.warning("answers of %s cannot be compared: %s", known.name, error)
        found.errors += 1
        return
    if same:
        found.same += 1
        return
    found.different += 1
    said = shown(outcome.error or outcome.answer)
    samples = deque(found.samples, maxlen=_SAMPLES)
    samples.append(Sample(call.method, shown(call.arguments), shown(primary.answer), said))
    found.samples = list(samples)
