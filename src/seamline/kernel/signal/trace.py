"""Trace context after W3C Trace Context, and spans kept in a bounded ring.

Emitting a span costs about a microsecond; storing, exporting and showing it is another room's work.
"""

from __future__ import annotations

import random
import time
from collections import deque
from typing import NamedTuple


class TraceContext:
    """Where in which trace we are. ``sampled`` says whether spans are recorded."""

    __slots__ = ("sampled", "span_id", "trace_id")

    def __init__(self, trace_id: int, span_id: int, sampled: bool) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.sampled = sampled

    def child(self) -> TraceContext:
        """The same trace, with a new span."""
        return TraceContext(self.trace_id, random.getrandbits(64) or 1, self.sampled)

    def to_traceparent(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{'01' if self.sampled else '00'}"

    @classmethod
    def from_traceparent(cls, header: str | None) -> TraceContext | None:
        """The context in a ``traceparent`` header, or None when there is none or it is malformed."""
        if header is None or len(header) < 55 or header[2] != "-" or header[35] != "-" or header[52] != "-":
            return None
        try:
            version, trace_id = int(header[:2], 16), int(header[3:35], 16)
            span_id, flags = int(header[36:52], 16), int(header[53:55], 16)
        except ValueError:
            return None
        if version == 255 or trace_id == 0 or span_id == 0:
            return None
        return cls(trace_id, span_id, bool(flags & 1))


class Span(NamedTuple):
    """One finished piece of work. Times are seconds since the epoch and seconds."""

    trace_id: int
    span_id: int
    parent_id: int
    name: str
    kind: str
    module: str
    peer: str
    started: float
    duration_s: float
    status: str


class Tracer:
    """Decides which traces are sampled and keeps the last spans.

    Args:
        sample: share of new traces that are recorded, 0 to 1.
        capacity: how many spans are kept until someone reads them.
    """

    def __init__(self, sample: float = 0.01, capacity: int = 4096) -> None:
        self.sample = sample
        self._spans: deque[Span] = deque(maxlen=capacity)

    def root(self) -> TraceContext | None:
        """A new trace if the lot falls on it, else None. It has no span yet: its first child has no parent."""
        if random.random() >= self.sample:
            return None
        return TraceContext(random.getrandbits(128) or 1, 0, True)

    def record(
        self,
        context: TraceContext,
        parent_id: int,
        name: str,
        kind: str,
        module: str,
        peer: str,
        duration_s: float,
        status: str,
    ) -> None:
        self._spans.append(
            Span(
                context.trace_id,
                context.span_id,
                parent_id,
                name,
                kind,
                module,
                peer,
                time.time() - duration_s,
                duration_s,
                status,
            )
        )

    def take(self) -> list[Span]:
        """The spans recorded since the last call, oldest first."""
        spans = list(self._spans)
        self._spans.clear()
        return spans
