"""What models' work looks like in figures, by module, contract, version and method."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from seamline.kernel.signal.measures import Histogram, Measure
from seamline.models.serving.engine import Engine

PREFIX: Final = "seamline.serving."
"""Not that of scores, which are watched for drift."""
_SECONDS: Final = tuple(0.001 * 2.0**power for power in range(16))
_COUNTS: Final = ("refused", "expired", "left", "given_up")


class Telling:
    """Of one process."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str, str], float] = {}
        self._first: dict[tuple[str, str], Histogram] = {}
        self._between: dict[tuple[str, str], Histogram] = {}

    def streamed(self, module: str, engine: Engine, seconds: float, first_s: float, items: int) -> None:
        """A stream has ended."""
        if not items:
            return
        key = module, engine.model.name
        if key not in self._first:
            self._first[key], self._between[key] = Histogram(_SECONDS), Histogram(_SECONDS)
        self._first[key].add(first_s)
        if items > 1:
            self._between[key].add((seconds - first_s) / (items - 1))

    def take(self, engines: Iterable[tuple[str, Engine]]) -> list[Measure]:
        """What has grown since it was taken last, and how much waits now."""
        found: list[Measure] = []
        for module, engine in engines:
            found += self._of_engine(module, engine)
            for name, histograms in (("first_item", self._first), ("between_items", self._between)):
                histogram = histograms.get((module, engine.model.name))
                if histogram is not None:
                    found += _some(histogram.take(PREFIX + name, module, "s", _of(engine)))
        return found

    def _of_engine(self, module: str, engine: Engine) -> Iterable[Measure]:
        of = _of(engine)
        yield Measure(PREFIX + "streams", engine.streams, module, "gauge", "{stream}", of)
        yield from self._grown("cold_starts", module, engine.cold_starts, of)
        if engine.answers is not None:
            answers = engine.answers
            for name, value in (
                ("hits", answers.hits), ("misses", answers.misses), ("joined", answers.joined),
                ("similar", answers.similar),
            ):  # fmt: skip
                yield from self._grown("cache", module, value, {**of, "result": name})
        for method, queue in engine.queues.items():
            named = {**of, "method": method}
            yield Measure(PREFIX + "waiting", queue.waiting, module, "gauge", "{call}", named)
            yield from _some(queue.stats.sizes.take(PREFIX + "batch_size", module, "{call}", named))
            yield from _some(queue.stats.waits.take(PREFIX + "queue_wait", module, "s", named))
            for name in _COUNTS:
                yield from self._grown("not_answered", module, getattr(queue.stats, name), {**named, "why": name})

    def _grown(self, name: str, module: str, value: float, attributes: dict[str, str]) -> list[Measure]:
        key = module, name, "|".join(attributes.values())
        grown = value - self._told.get(key, 0)
        if not grown:
            return []
        self._told[key] = value
        return [Measure(PREFIX + name, grown, module, "counter", "{call}", attributes)]


def _of(engine: Engine) -> dict[str, str]:
    return {"contract": engine.model.contract.__name__, "version": engine.model.version}


def _some(measure: Measure | None) -> list[Measure]:
    return [] if measure is None else [measure]
