"""Gauges that parts of the platform show: whoever has some is asked with each telling, for as long as it lives."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Final, Protocol

from seamline.kernel.signal.measures import Measure


class Gauge(Protocol):
    def take(self) -> Iterable[Measure]:
        """What it shows now. Called on the loop, once a second: quick, and never waiting."""
        ...


class Gauges:
    """Of one process."""

    def __init__(self) -> None:
        self._known: weakref.WeakSet[Gauge] = weakref.WeakSet()

    def add(self, gauge: Gauge) -> None:
        """Ask it from now on, until nobody holds it any more."""
        self._known.add(gauge)

    def drop(self, gauge: Gauge) -> None:
        """Ask it no more."""
        self._known.discard(gauge)

    def take(self) -> list[Measure]:
        return [measure for gauge in list(self._known) for measure in gauge.take()]


GAUGES: Final = Gauges()
