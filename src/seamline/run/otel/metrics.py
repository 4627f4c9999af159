"""Users' instruments: values are added up by module and attributes until they are told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any, Final, TypeVar, cast

from opentelemetry import metrics
from opentelemetry.context import Context
from opentelemetry.metrics import (
    CallbackOptions,
    Observation,
    _Gauge,  # pyright: ignore[reportPrivateUsage]  # it has no other name there yet
)

from seamline.kernel.signal import here
from seamline.kernel.signal.measures import Histogram, Measure
from seamline.run.otel.values import shown

SERIES_MAX: Final = 1_000
"""Of one instrument; what is more is added up under ``otel.metric.overflow``, as the specification has it."""

INSTRUMENTS_MAX: Final = 2_000
_CHARACTERS_MAX: Final = 256
_BOUNDS: Final = (0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)
"""OpenTelemetry's own where nothing else is advised."""

_OVERFLOW: Final = ("", (("otel.metric.overflow", "true"),))
_log = logging.getLogger("seamline.run")

K = TypeVar("K", bound="_Kept")

Attributes = Mapping[str, Any] | None
Series = tuple[str, tuple[tuple[str, str], ...]]
"""Module and attributes."""
Callback = Callable[[CallbackOptions], Iterable[Observation]] | Generator[Iterable[Observation], CallbackOptions, None]


class _Kept:
    """Values of one instrument by series."""

    def __init__(self, name: str, unit: str) -> None:
        self.name = name
        self.unit = unit
        self._lock = Lock()
        self._values: dict[Series, float] = {}

    def increase(self, amount: float, attributes: Attributes) -> None:
        with self._lock:
            series = self._series(self._values, attributes)
            self._values[series] = self._values.get(series, 0.0) + amount

    def put(self, amount: float, attributes: Attributes) -> None:
        with self._lock:
            self._values[self._series(self._values, attributes)] = amount

    def _series(self, known: Mapping[Series, object], attributes: Attributes) -> Series:
        shown_attributes = sorted(
            (str(name), shown(value)[:_CHARACTERS_MAX]) for name, value in (attributes or {}).items()
        )
        series = here.module(), tuple(shown_attributes)
        return series if series in known or len(known) < SERIES_MAX else _OVERFLOW

    def take(self) -> list[Measure]:
        raise NotImplementedError


class _Grown(_Kept):
    """Takes what was added."""

    def take(self) -> list[Measure]:
        with self._lock:
            values, self._values = self._values, {}
        return [
            Measure(self.name, value, module, "counter", self.unit, dict(attributes))
            for (module, attributes), value in values.items()
        ]


class _Standing(_Kept):
    """Takes what is."""

    def take(self) -> list[Measure]:
        with self._lock:
            values = dict(self._values)
        return [
            Measure(self.name, value, module, "gauge", self.unit, dict(attributes))
            for (module, attributes), value in values.items()
        ]


class Counter(_Grown, metrics.Counter):
    def add(self, amount: float, attributes: Attributes = None, context: Context | None = None) -> None:  # noqa: ARG002  # the API's
        if amount >= 0:
            self.increase(amount, attributes)


class UpDownCounter(_Standing, metrics.UpDownCounter):
    def add(self, amount: float, attributes: Attributes = None, context: Context | None = None) -> None:  # noqa: ARG002  # the API's
        self.increase(amount, attributes)


class Gauge(_Standing, _Gauge):
    def set(self, amount: float, attributes: Attributes = None, context: Context | None = None) -> None:  # noqa: ARG002  # the API's
        self.put(amount, attributes)


class UserHistogram(_Kept, metrics.Histogram):
    def __init__(self, name: str, unit: str, bounds: Sequence[float] | None) -> None:
        super().__init__(name, unit)
        self._bounds = sorted(bounds) if bounds is not None else _BOUNDS
        self._histograms: dict[Series, Histogram] = {}

    def record(self, amount: float, attributes: Attributes = None, context: Context | None = None) -> None:  # noqa: ARG002  # the API's
        with self._lock:
            series = self._series(self._histograms, attributes)
            histogram = self._histograms.get(series)
            if histogram is None:
                histogram = self._histograms[series] = Histogram(self._bounds)
            histogram.add(amount)

    def take(self) -> list[Measure]:
        with self._lock:
            found = [
                histogram.take(self.name, module, self.unit, dict(attributes))
                for (module, attributes), histogram in self._histograms.items()
            ]
        return [measure for measure in found if measure is not None]


class _Observed(_Kept):
    """Asks the user's functions when it is taken. A function that fails is told of once."""

    cumulative = False
    kind: Any = "gauge"

    def __init__(self, name: str, unit: str, callbacks: Sequence[Callback] | None) -> None:
        super().__init__(name, unit)
        self._callbacks = list(callbacks or ())
        self._before: dict[Series, float] = {}
        self._failed = False

    def take(self) -> list[Measure]:
        now: dict[Series, float] = {}
        for observation in self._observations():
            series = self._series(now, observation.attributes)
            now[series] = now.get(series, 0.0) + observation.value if self.cumulative else observation.value
        before, self._before = self._before, now if self.cumulative else {}
        return [
            Measure(
                self.name,
                value - _base(before.get(series, 0.0), value),
                series[0],
                self.kind,
                self.unit,
                dict(series[1]),
            )
            for series, value in now.items()
        ]

    def _observations(self) -> list[Observation]:
        found: list[Observation] = []
        for callback in self._callbacks:
            try:
                found += list(callback(CallbackOptions()) if callable(callback) else next(callback))
            except Exception:  # the user's function; what measures must not end what is measured
                if not self._failed:
                    self._failed = True
                    _log.exception("the callback of the instrument %r failed", self.name)
        return found


def _base(before: float, now: float) -> float:
    """What a total grew from: it began anew where it is less than it was."""
    return before if before <= now else 0.0


class ObservableCounter(_Observed, metrics.ObservableCounter):
    cumulative = True
    kind = "counter"


class ObservableUpDownCounter(_Observed, metrics.ObservableUpDownCounter):
    pass


class ObservableGauge(_Observed, metrics.ObservableGauge):
    pass


class UserMeter(metrics.Meter):
    def __init__(self, provider: MeterProvider, name: str, version: str | None, schema_url: str | None) -> None:
        super().__init__(name, version, schema_url)
        self._provider = provider

    def create_counter(self, name: str, unit: str = "", description: str = "") -> Counter:  # noqa: ARG002  # the API's
        return self._provider.same(Counter(name, unit))

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "") -> UpDownCounter:  # noqa: ARG002  # the API's
        return self._provider.same(UpDownCounter(name, unit))

    def create_gauge(self, name: str, unit: str = "", description: str = "") -> Gauge:  # noqa: ARG002  # the API's
        return self._provider.same(Gauge(name, unit))

    def create_histogram(
        self,
        name: str,
        unit: str = "",
        description: str = "",  # noqa: ARG002  # the API's
        *,
        explicit_bucket_boundaries_advisory: Sequence[float] | None = None,
    ) -> UserHistogram:
        return self._provider.same(UserHistogram(name, unit, explicit_bucket_boundaries_advisory))

    def create_observable_counter(
        self,
        name: str,
        callbacks: Sequence[Callback] | None = None,
        unit: str = "",
        description: str = "",  # noqa: ARG002  # the API's
    ) -> ObservableCounter:
        return self._provider.keep(ObservableCounter(name, unit, callbacks))

    def create_observable_up_down_counter(
        self,
        name: str,
        callbacks: Sequence[Callback] | None = None,
        unit: str = "",
        description: str = "",  # noqa: ARG002  # the API's
    ) -> ObservableUpDownCounter:
        return self._provider.keep(ObservableUpDownCounter(name, unit, callbacks))

    def create_observable_gauge(
        self,
        name: str,
        callbacks: Sequence[Callback] | None = None,
        unit: str = "",
        description: str = "",  # noqa: ARG002  # the API's
    ) -> ObservableGauge:
        return self._provider.keep(ObservableGauge(name, unit, callbacks))


class MeterProvider(metrics.MeterProvider):
    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: list[_Kept] = []
        self._by_name: dict[tuple[str, type[_Kept]], _Kept] = {}

    def get_meter(
        self,
        name: str,
        version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,  # noqa: ARG002  # the API's
    ) -> UserMeter:
        return UserMeter(self, name, version, schema_url)

    def same(self, made: K) -> K:
        """The instrument that was made first under this name; who makes one for each call makes no more of them."""
        with self._lock:
            first = self._by_name.setdefault((made.name, type(made)), made)
        return self.keep(made) if first is made else cast("K", first)

    def keep(self, made: K) -> K:
        with self._lock:
            if len(self._kept) < INSTRUMENTS_MAX:
                self._kept.append(made)
        return made

    def take(self) -> list[Measure]:
        """What was measured since it was taken last."""
        with self._lock:
            kept = list(self._kept)
        return [measure for each in kept for measure in each.take()]
