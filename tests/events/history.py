"""What producers and consumers did to a broker, and whether it kept its promises.

A :class:`History` is written down while the work goes on: which events producers tried to publish and in which order,
what the broker acknowledged, what was handed out, and which effects were committed, in the order of their commits.
:func:`violations` then says, in sentences, what should not have happened:

- an event that was acknowledged has no effect (lost);
- of two events of one key, the one that was published later took effect first (swapped);
- an event has two effects (doubled);
- an effect, or a delivery, is of an event that nobody published (invented), or has another key than was published.

An event that was published and not acknowledged may be there or not: its producer does not know either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Attempt(NamedTuple):
    """An event that a producer began to publish. A key has one producer, which publishes one after another."""

    id: str
    key: str


class Seen(NamedTuple):
    """An event as a consumer had it."""

    id: str
    key: str


@dataclass
class History:
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    """In the order of publishing within each key; one that is tried again stands there once."""
    acknowledged: set[str] = field(default_factory=set[str])
    deliveries: list[Seen] = field(default_factory=list[Seen])
    effects: list[Seen] = field(default_factory=list[Seen])
    """In the order of their commits."""

    def missing(self) -> set[str]:
        """Acknowledged, and without effect yet."""
        return self.acknowledged - {effect.id for effect in self.effects}


def violations(history: History) -> list[str]:
    """What happened that must not have; empty if all was well."""
    return [*_lost(history), *_invented(history), *_doubled(history), *_swapped(history)]


def _lost(history: History) -> Iterable[str]:
    handed_out = {seen.id for seen in history.deliveries}
    for missing in sorted(history.missing()):
        fate = "handed out, but has no effect" if missing in handed_out else "never handed out"
        yield f"lost: {missing} was acknowledged, and was {fate}"


def _invented(history: History) -> Iterable[str]:
    published = dict(history.attempts)
    for what, events in (("an effect", history.effects), ("a delivery", history.deliveries)):
        for each in sorted(set(events)):
            if each.id not in published:
                yield f"invented: {each.id} has {what}, and nobody published it"
            elif published[each.id] != each.key:
                yield f"invented: {each.id} has {what} with the key {each.key!r}, not {published[each.id]!r}"


def _doubled(history: History) -> Iterable[str]:
    for each, count in sorted(Counter(effect.id for effect in history.effects).items()):
        if count > 1:
            yield f"doubled: {each} took effect {count} times"


def _swapped(history: History) -> Iterable[str]:
    places = {attempt.id: place for place, attempt in enumerate(history.attempts)}
    latest: dict[str, str] = {}
    for effect in history.effects:
        if effect.id not in places:
            continue
        before = latest.get(effect.key)
        if before is not None and places[effect.id] < places[before]:
            yield f"swapped: {effect.id} took effect after {before}, which was published later (key {effect.key!r})"
        else:
            latest[effect.key] = effect.id
