"""What flowed between two looks at the counters of all workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seamline.kernel.signal.metrics import quantile_ms

_Edge = tuple[str, str, str]


@dataclass(frozen=True)
class Snapshot:
    """The counters at one moment, by process."""

    at_s: float
    stats: Mapping[tuple[int, str], Mapping[str, Any]]


def compare(before: Snapshot, after: Snapshot) -> list[dict[str, Any]]:
    """Calls a second, errors a second and latency of each edge between the looks, the busiest first.

    A process that is new since ``before`` counts from zero.
    """
    seconds = max(after.at_s - before.at_s, 1e-3)
    calls: dict[_Edge, int] = {}
    errors: dict[_Edge, int] = {}
    inflight: dict[_Edge, int] = {}
    histograms: dict[_Edge, list[int]] = {}
    for process, stats in after.stats.items():
        old = {_key(edge): edge for edge in before.stats.get(process, {}).get("edges", [])}
        for edge in stats.get("edges", []):
            key = _key(edge)
            earlier: Mapping[str, Any] = old.get(key, {})
            calls[key] = calls.get(key, 0) + edge["calls"] - earlier.get("calls", 0)
            errors[key] = errors.get(key, 0) + edge["errors"] - earlier.get("errors", 0)
            inflight[key] = inflight.get(key, 0) + edge.get("inflight", 0)
            histogram = list(edge.get("histogram", []))
            for bucket, number in enumerate(earlier.get("histogram", [])):
                histogram[bucket] -= number
            total = histograms.setdefault(key, [0] * len(histogram))
            for bucket, number in enumerate(histogram):
                total[bucket] += number
    return [
        {
            "caller": key[0],
            "callee": key[1],
            "method": key[2],
            "calls_per_s": round(calls[key] / seconds, 1),
            "errors_per_s": round(errors[key] / seconds, 2),
            "inflight": inflight[key],
            "p50_ms": round(quantile_ms(histograms[key], 0.5), 3),
            "p99_ms": round(quantile_ms(histograms[key], 0.99), 3),
        }
        for key in sorted(calls, key=lambda edge: (-calls[edge], edge))
    ]


def _key(edge: Mapping[str, Any]) -> _Edge:
    return edge["caller"], edge["callee"], edge["method"]
