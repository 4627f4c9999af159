"""Metrics as Prometheus reads them: the text format 0.0.4, and OpenMetrics 1.0 for who asks for it.

What processes tell is how much things grew; :class:`Totals` adds it up, since Prometheus wants totals. Names follow
OpenTelemetry's rules for Prometheus: the unit stands last, and ``_total`` behind a counter.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from seamline.observe.records import Batch, Point, Source, Span, Traffic

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
DURATION_BOUNDS_S: Final = tuple(2**power / 1e6 for power in range(4, 27))
"""16 µs, and twice as much each time up to 67 s: where our own histograms have an edge as well."""
SERIES_MAX: Final = 10_000
_SILENT_NS: Final = 300 * 10**9
_EXEMPLAR_NS: Final = 120 * 10**9

CALL_DURATION: Final = "seamline_call_duration_seconds"
CALL_ERRORS: Final = "seamline_call_errors"
CALL_RETRIES: Final = "seamline_call_retries"
CALLS_IN_FLIGHT: Final = "seamline_calls_in_flight"
SERIES_DROPPED: Final = "seamline_metrics_series_dropped"

Type = Literal["gauge", "counter", "histogram"]
Labels = tuple[tuple[str, str], ...]

_UNITS: Final = {
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds",
    "ns": "nanoseconds", "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes",
    "kBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "m": "meters", "V": "volts", "A": "amperes",
    "J": "joules", "W": "watts", "g": "grams", "Cel": "celsius", "Hz": "hertz", "%": "percent",
}  # fmt: skip
_NOT_NAME = re.compile(r"[^a-zA-Z0-9_:]+")
_NOT_LABEL = re.compile(r"[^a-zA-Z0-9_]+")
_RUNS = re.compile(r"_+")
_BRACED = re.compile(r"\{[^}]*\}")


class _Exemplar(msgspec.Struct, gc=False):
    trace_id: bytes
    span_id: bytes
    value: float
    at_ns: int


class _Series(msgspec.Struct, gc=False):
    source: tuple[str, int]
    at_ns: int
    value: float = 0.0
    """The sum, of a histogram."""
    count: int = 0
    buckets: dict[float, int] = msgspec.field(default_factory=dict[float, int])
    exemplar: _Exemplar | None = None


class _Family(msgspec.Struct, gc=False):
    type: Type
    help: str
    unit: str
    series: dict[Labels, _Series] = msgspec.field(default_factory=dict[Labels, _Series])


class Totals:
    """What was told since the start, added up.

    A series is given up when the process that told it has been silent for five minutes. Where there are too many, new
    ones are left out, and counted in ``seamline_metrics_series_dropped_total``.
    """

    def __init__(self, series_max: int = SERIES_MAX) -> None:
        self._series_max = series_max
        self._families: dict[str, _Family] = {}
        self._sources: dict[tuple[str, int], int] = {}
        self._count = 0
        self._dropped = 0
        self._now_ns = 0
        self._swept_ns = 0

    def __len__(self) -> int:
        return self._count

    def add(self, batch: Batch) -> None:
        source = (batch.source.workload, batch.source.replica)
        self._now_ns = max(self._now_ns, batch.at_ns)
        if source[0]:
            self._sources[source] = batch.at_ns
        for traffic in batch.traffic:
            self._add_traffic(traffic, source, batch.at_ns)
        for point in batch.points:
            self._add_point(point, source, batch.at_ns)
        for span in batch.spans:
            if span.kind in ("client", "server"):
                self._add_exemplar(span, source)

    def render(self, accept: str = "", workload: str | None = None) -> tuple[bytes, str]:
        """The page and its content type; of one workload or of all. ``accept`` is the request's header."""
        openmetrics = wants_openmetrics(accept)
        self._sweep(force=True)
        lines: list[str] = []
        for name, family in sorted(self._families.items()):
            shown = {
                labels: series
                for labels, series in family.series.items()
                if workload is None or series.source[0] == workload
            }
            if shown:
                lines += _head(name, family, openmetrics)
                for labels, series in sorted(shown.items()):
                    lines += _lines(name, family.type, labels, series, self._now_ns if openmetrics else 0)
        dropped = _Family("counter", "Series left out because there are too many", "")
        lines += _head(SERIES_DROPPED, dropped, openmetrics)
        lines += _lines(SERIES_DROPPED, "counter", (), _Series(("", 0), 0, self._dropped), 0)
        if openmetrics:
            lines.append("# EOF")
        return ("\n".join(lines) + "\n").encode(), OPENMETRICS if openmetrics else TEXT

    def _add_traffic(self, traffic: Traffic, source: tuple[str, int], at_ns: int) -> None:
        labels = (*_edge_labels(traffic.caller, traffic.callee, traffic.method, traffic.side), *_source_labels(source))
        about = "How long calls took, by who called whom"
        whole = self._series(CALL_DURATION, "histogram", about, "seconds", labels, source, at_ns)
        if whole is not None:
            whole.value += traffic.sum_ns / 1e9
            whole.count += traffic.calls
            for bound, count in zip((*DURATION_BOUNDS_S, math.inf), durations(traffic.histogram), strict=True):
                whole.buckets[bound] = whole.buckets.get(bound, 0) + count
        inflight = self._series(CALLS_IN_FLIGHT, "gauge", "Calls under way", "", labels, source, at_ns)
        if inflight is not None:
            inflight.value = traffic.inflight
        if traffic.retries:
            retries = self._series(CALL_RETRIES, "counter", "Calls tried again", "", labels, source, at_ns)
            if retries is not None:
                retries.value += traffic.retries
        for code, count in traffic.codes.items():
            about = "Calls that failed, by code"
            errors = self._series(CALL_ERRORS, "counter", about, "", (*labels, ("code", code)), source, at_ns)
            if errors is not None:
                errors.value += count

    def _add_point(self, point: Point, source: tuple[str, int], at_ns: int) -> None:
        if not math.isfinite(point.value):
            return
        name, unit = metric_name(point.name, point.unit, point.kind)
        labels = label_names({**point.attributes, **dict(_source_labels(source))})
        if point.module:
            labels = (("module", point.module), *(pair for pair in labels if pair[0] != "module"))
        about = f"OpenTelemetry metric {point.name}"
        series = self._series(name, point.kind, about, unit, labels, source, at_ns)
        if series is None:
            return
        if point.kind == "gauge":
            series.value = point.value
        elif point.kind == "counter":
            series.value += max(point.value, 0.0)
        else:
            series.value += point.value
            series.count += point.count
            for bound, count in point.buckets.items():
                upper = float(bound)
                series.buckets[upper] = series.buckets.get(upper, 0) + count

    def _add_exemplar(self, span: Span, source: tuple[str, int]) -> None:
        """A trace that one of the counted calls belongs to, if its edge has been counted."""
        family = self._families.get(CALL_DURATION)
        if family is None or not span.peer:
            return
        caller, callee = (span.module, span.peer) if span.kind == "client" else (span.peer, span.module)
        series = family.series.get((*_edge_labels(caller, callee, span.name, span.kind), *_source_labels(source)))
        if series is not None:
            at_ns = span.start_ns + span.duration_ns
            series.exemplar = _Exemplar(span.trace_id, span.span_id, span.duration_ns / 1e9, at_ns)

    def _series(
        self, name: str, kind: Type, about: str, unit: str, labels: Labels, source: tuple[str, int], at_ns: int
    ) -> _Series | None:
        family = self._families.get(name)
        series = family.series.get(labels) if family is not None else None
        if series is not None and family is not None and family.type == kind:
            series.at_ns = at_ns
            return series
        full = self._count >= self._series_max and not self._sweep()
        if full or (family is not None and family.type != kind):
            self._dropped += 1
            return None
        family = self._families.get(name)  # the sweep may have taken it
        if family is None:
            family = self._families[name] = _Family(kind, about, unit)
        self._count += 1
        family.series[labels] = series = _Series(source, at_ns)
        return series

    def _sweep(self, *, force: bool = False) -> bool:
        """Give up what is silent; not more than once a second, however many new series come."""
        if not force and self._now_ns - self._swept_ns < 10**9:
            return False
        self._swept_ns = self._now_ns
        oldest_ns = self._now_ns - _SILENT_NS
        self._sources = {source: at for source, at in self._sources.items() if at >= oldest_ns}
        for name, family in list(self._families.items()):
            family.series = {
                labels: series
                for labels, series in family.series.items()
                if series.at_ns >= oldest_ns or series.source in self._sources
            }
            if not family.series:
                del self._families[name]
        self._count = sum(len(family.series) for family in self._families.values())
        return self._count < self._series_max


def render(points: Iterable[Point], traffic: Iterable[Traffic], *, accept: str = "") -> bytes:
    """A page of totals that somebody has added up already."""
    totals = Totals()
    totals.add(Batch(Source(""), 0, points=list(points), traffic=list(traffic)))
    return totals.render(accept)[0]


def durations(histogram: Mapping[int, int]) -> list[int]:
    """Our buckets, of which four make an octave, as counts up to each of DURATION_BOUNDS_S and beyond."""
    counts = [0] * (len(DURATION_BOUNDS_S) + 1)
    for bucket, count in histogram.items():
        bits = bucket.bit_length() if bucket < 4 else (bucket >> 2) + 2
        counts[min(max(bits - 4, 0), len(DURATION_BOUNDS_S))] += count
    return counts


def wants_openmetrics(accept: str) -> bool:
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        if kind == "application/openmetrics-text":
            return "q=0" not in parameters and not any(re.fullmatch(r"q=0\.0+", piece) for piece in parameters)
    return False


def metric_name(name: str, unit: str, kind: Type) -> tuple[str, str]:
    """The family's name, without ``_total``, and its unit as Prometheus spells it."""
    plain = _RUNS.sub("_", _NOT_NAME.sub("_", name)).strip("_") or "_"
    if plain[0].isdigit():
        plain = f"_{plain}"
    if kind == "counter":
        plain = plain.removesuffix("_total") or plain
    word = _unit_word(unit, kind)
    if word and not plain.endswith(f"_{word}"):
        plain = f"{plain}_{word}"
    return plain, word


def _unit_word(unit: str, kind: Type) -> str:
    unit = _BRACED.sub("", unit).strip()
    if unit == "1":
        return "ratio" if kind == "gauge" else ""
    over, slash, per = unit.partition("/")
    word = _NOT_LABEL.sub("_", _UNITS.get(over, over)).strip("_")
    if slash:
        below = _UNITS.get(per, per).removesuffix("s")
        word = _NOT_LABEL.sub("_", f"{word}_per_{below}").strip("_") if below else word
    return _RUNS.sub("_", word)


def label_names(attributes: Mapping[str, str]) -> Labels:
    """Attributes as labels; where two become one name, their values are joined, as OpenTelemetry says."""
    found: dict[str, str] = {}
    for key, value in sorted(attributes.items()):
        name = _NOT_LABEL.sub("_", key) or "_"
        if name[0].isdigit():
            name = f"key_{name}"
        elif name.startswith("__"):
            name = f"key{name}"  # two underscores are Prometheus' own
        elif name == "le":
            name = "key_le"  # so is a bucket's bound
        found[name] = f"{found[name]};{value}" if name in found else value
    return tuple(sorted(found.items()))


def _edge_labels(caller: str, callee: str, method: str, side: str) -> Labels:
    return (("callee", callee), ("caller", caller), ("method", method), ("side", side))


def _source_labels(source: tuple[str, int]) -> Labels:
    return (("replica", str(source[1])), ("workload", source[0])) if source[0] else ()


def _head(name: str, family: _Family, openmetrics: bool) -> list[str]:
    full = f"{name}_total" if family.type == "counter" and not openmetrics else name
    lines = [f"# HELP {full} {_escaped(family.help)}", f"# TYPE {full} {family.type}"]
    if openmetrics and family.unit:
        lines.append(f"# UNIT {name} {family.unit}")
    return lines


def _lines(name: str, kind: Type, labels: Labels, series: _Series, exemplars_ns: int) -> list[str]:
    """``exemplars_ns`` is now, or 0 for a format without exemplars."""
    if kind != "histogram":
        return [f"{name}{'_total' if kind == 'counter' else ''}{_braced(labels)} {_number(series.value)}"]
    bounds = sorted(series.buckets)
    if not bounds or bounds[-1] != math.inf:
        bounds.append(math.inf)
    example = series.exemplar
    if example is not None and not 0 <= exemplars_ns - example.at_ns < _EXEMPLAR_NS:
        example = None
    place = bisect_left(bounds, example.value) if example is not None else -1
    lines: list[str] = []
    total = 0
    for index, bound in enumerate(bounds):
        # A histogram that is told without buckets has all in the last.
        total = series.count if bound == math.inf else total + series.buckets[bound]
        line = f"{name}_bucket{_braced((*labels, ('le', _number(bound))))} {total}"
        lines.append(f"{line}{_example(example)}" if example is not None and index == place else line)
    shown = _braced(labels)
    return [*lines, f"{name}_count{shown} {series.count}", f"{name}_sum{shown} {_number(series.value)}"]


def _example(example: _Exemplar) -> str:
    ids = f'{{trace_id="{example.trace_id.hex()}",span_id="{example.span_id.hex()}"}}'
    return f" # {ids} {_number(example.value)} {example.at_ns / 1e9:.3f}"


def _braced(labels: Labels) -> str:
    if not labels:
        return ""
    inside = ",".join(f'{name}="{_escaped(value, quotes=True)}"' for name, value in labels)
    return f"{{{inside}}}"


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", " ")
    return text.replace('"', '\\"') if quotes else text


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))
