"""Counters that are told as totals, made into what they grew by; and that there are not too many of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from seamline.observe.otlp.bounds import NUMBERS_MAX, SERIES_MAX

_IDLE_NS: Final = 900 * 10**9


class Growth(NamedTuple):
    values: list[int | float]
    total: float


class _Last(msgspec.Struct, gc=False):
    seen_ns: int
    size: int
    start_ns: int = 0
    time_ns: int = 0
    values: Sequence[int | float] = ()
    edges: Sequence[float] = ()
    total: float = 0.0


class Series:
    """What was last told of each series. One that was silent for a quarter of an hour makes room for a new one.

    Args:
        began_ns: when, by the wall clock.
    """

    def __init__(self, began_ns: int, *, series_max: int = SERIES_MAX, numbers_max: int = NUMBERS_MAX) -> None:
        self._began_ns = began_ns
        self._series_max = series_max
        self._numbers_max = numbers_max
        self._numbers = 0
        self._last: dict[bytes, _Last] = {}
        self._swept_ns = 0

    def __len__(self) -> int:
        return len(self._last)

    def admit(self, key: bytes, now_ns: int, size: int = 1) -> bool:
        """Whether there is room for ``size`` numbers of it; asked before anything else."""
        last = self._last.get(key)
        more = size - (last.size if last is not None else 0)
        full = self._numbers + more > self._numbers_max or (last is None and len(self._last) >= self._series_max)
        if more > 0 and full and not self._sweep(now_ns):
            return False
        last = self._last.get(key)  # the sweep may have taken it
        if last is None:
            last = self._last[key] = _Last(now_ns, 0)
        self._numbers += size - last.size
        last.size, last.seen_ns = size, now_ns
        return True

    def growth(
        self,
        key: bytes,
        start_ns: int,
        time_ns: int,
        values: Sequence[int | float],
        total: float = 0.0,
        edges: Sequence[float] = (),
    ) -> Growth | None:
        """By how much each value grew since the last telling; None where nothing can be said.

        A start that moved, or a value that fell, is a counter that began anew: all of it is growth. The first telling
        counts only if the counter began after we did, or a process that has run for weeks would look like a burst.
        ``total`` may fall. Of a histogram, ``values`` are the count and then the buckets up to each of ``edges``.
        """
        last = self._last[key]
        if time_ns <= last.time_ns:
            return None  # told twice, or overtaken
        known, before, total_before = last.time_ns > 0, last.values, last.total
        if last.edges != edges and known:
            before = _laid_out(before, last.edges, edges)
        restarted = known and (
            start_ns > last.start_ns > 0
            or len(before) != len(values)
            or any(now < then for now, then in zip(values, before, strict=True))
        )
        last.start_ns, last.time_ns, last.values, last.edges, last.total = start_ns, time_ns, values, edges, total
        if known and not restarted:
            return Growth([now - then for now, then in zip(values, before, strict=True)], total - total_before)
        if restarted or start_ns >= self._began_ns:
            return Growth(list(values), total)
        return None

    def level(self, key: bytes, change: float) -> float:
        """The sum of all changes of what goes up and down."""
        last = self._last[key]
        last.total += change
        return last.total

    def _sweep(self, now_ns: int) -> bool:
        """Looks through all at most once a second: a flood of new series must not cost that each time."""
        if now_ns - self._swept_ns < 10**9:
            return False
        self._swept_ns = now_ns
        before = len(self._last)
        self._last = {key: last for key, last in self._last.items() if now_ns - last.seen_ns < _IDLE_NS}
        self._numbers = sum(last.size for last in self._last.values())
        return len(self._last) < before


def _laid_out(values: Sequence[int | float], edges: Sequence[float], wanted: Sequence[float]) -> Sequence[int | float]:
    """The buckets between other edges, as when an exponential histogram spreads or grows coarser."""
    laid: list[int | float] = [values[0], *([0] * len(wanted))]
    for edge, count in zip(edges, values[1:], strict=True):
        if count:
            place = bisect_left(wanted, edge)
            if place == len(wanted):
                return ()
            laid[1 + place] += count
    return laid
