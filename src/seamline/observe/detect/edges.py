"""One edge of the call graph, watched for failures, latency, and how often it is used."""

from __future__ import annotations

from math import exp, log
from typing import Final

from seamline.kernel.signal.metrics import BUCKETS, bucket_ms
from seamline.observe.detect.board import Board
from seamline.observe.detect.counts import Failures, Share
from seamline.observe.detect.level import Level, Rule
from seamline.observe.incidents import Symptom, What
from seamline.observe.windows import EdgeKey, Flow, Window

LATENCY: Final = Rule(step_ratio=log(1.4), drift_ratio=log(1.25), least=2.0, spread_min=0.06)
"""A change of less than two milliseconds is nobody's incident."""
GONE_AFTER: Final = 30
"""Windows without a call, after which nothing more can be said of an edge's failures and latency."""

_EASE: Final = 0.5
"""A callee with four times the work may take twice as long for each call."""
_LOG_MS: Final = [log(max(bucket_ms(bucket), 0.001)) for bucket in range(BUCKETS)]
_OUTSIDE: Final = frozenset({"http", "event", "saga"})
_VISITOR: Final = {"http": "visitors", "event": "topic", "saga": "sagas"}


class EdgeWatch:
    """What is known of one edge: ``feed`` and ``count`` for each window with calls, ``pass_by`` for each without."""

    __slots__ = (
        "_absent", "_asked", "_board", "_carried", "_edge", "_noise", "_rooted", "callee", "caller", "failures", "key",
        "latency", "name", "seen", "share", "site",
    )  # fmt: skip

    def __init__(self, board: Board, key: EdgeKey) -> None:
        self._board = board
        self.key = key
        self.caller, self.callee, method, side = key
        self._edge = (self.caller, self.callee, method)
        self.site = self.caller if side == "sql" else self.callee
        """The module that a symptom of this edge speaks of: a module's database is its own."""
        self.name = f"{self.caller or _VISITOR.get(side, 'others')} > {self.callee} {method}".rstrip()
        self.failures = Failures()
        self.latency = Level(LATENCY)
        self.share = Share()
        self.seen = 0
        """The number of the last window with calls."""
        self._noise = 0.5
        """Variance of one call's latency, as a logarithm, within a window."""
        self._absent = 0
        self._rooted = True
        self._carried = 0
        self._asked = method.partition(".")[0] == f"{self.callee}_events"
        """It asks a log for what is new: how often depends on how much came in one answer."""

    @property
    def ready(self) -> bool:
        return self.latency.usual is not None

    def feed(self, flow: Flow, window: Window, rush: float, *, learn: bool) -> None:
        """How its calls went in a window. ``rush``: how much more work than usual its callee has, as a logarithm."""
        self._absent = 0
        failures = self.failures
        was = failures.alarmed
        if failures.feed(flow.calls, flow.errors, window.at_ns, learn=learn):
            self._begin("errors", failures.before, failures.after, "ratio", failures.score, failures.rise_ns, window)
        elif was and not failures.alarmed:
            self._board.end(f"{self.name} errors")
        height, squares, total = 0.0, 0.0, 0
        for bucket, count in flow.histogram.items():
            each = _LOG_MS[bucket]
            height += each * count
            squares += each * each * count
            total += count
        if total <= 0:
            return
        mean = height / total
        latency = self.latency
        was = latency.alarmed
        if total > 1 and learn and not was:
            variance = (squares / total - mean * mean) * total / (total - 1)
            self._noise += 0.1 * (min(max(variance, 0.0), 4.0 * self._noise + 0.01) - self._noise)
        eased = mean - _EASE * rush
        if latency.feed(eased, self._noise / total, window.at_ns, learn=learn):
            after = max(flow.mean_ms, exp(mean))
            self._begin("latency", exp(latency.before), after, "ms", latency.score, latency.rise_ns, window)
        elif was and not latency.alarmed:
            self._board.end(f"{self.name} latency")

    def count(self, calls: int, visits: int, window: Window, *, learn: bool) -> None:
        """How often it was used, in so many visits that its caller got; a caller without any works of itself."""
        if self._asked:
            return
        if visits and self._rooted:
            self._rooted = False
            self.share = Share()
        elif not visits and not self._rooted:
            self._carried += calls  # of visits that end in the next window
            return
        calls, self._carried = calls + self._carried, 0
        share = self.share
        was = share.alarmed
        if share.feed(calls, visits or 1, window.at_ns, learn=learn):
            length_s = window.length_ns / 1e9
            before, after = share.before / length_s, calls / length_s
            self._begin("rate", before, after, "calls/s", share.score, share.rise_ns, window, supporting=self._rooted)
        elif was and not share.alarmed:
            self._board.end(f"{self.name} rate")

    def pass_by(self, window: Window, visits: int, *, learn: bool) -> None:
        """A window without calls. After a minute of them there is nothing left to call slow or failing."""
        self._absent += 1
        if self.share.ready and (visits or (self._rooted and self.share.alarmed)):
            self.count(0, visits, window, learn=learn)
        if self._absent == GONE_AFTER:
            if self.failures.alarmed:
                self.failures = Failures()
            if self.latency.alarmed:
                self.latency.forget()
            self._board.end(f"{self.name} errors")
            self._board.end(f"{self.name} latency")

    def move(self) -> None:
        """Its callee has moved to another process, or into this one: how long calls take must be learned anew."""
        self.latency.forget()
        self._board.end(f"{self.name} latency")

    def forget(self) -> None:
        for what in ("errors", "latency", "rate"):
            self._board.end(f"{self.name} {what}")

    def _begin(
        self, what: What, before: float, after: float, unit: str, score: float, at_ns: int, window: Window, *,
        supporting: bool = False,
    ) -> None:  # fmt: skip
        series = f"{self.name} {what}"
        score = round(score, 1)
        site = self.caller if self.caller and self._is_callers(what, after - before, window) else self.site
        self._board.begin(
            Symptom(series, what, site, self._edge, before, after, unit, score, at_ns, window.end_ns, supporting)
        )

    def _is_callers(self, what: What, more: float, window: Window) -> bool:
        """How often it is called is its caller's doing; so is, for all we know, a wait that its callee did not see."""
        if what != "latency":
            return what == "rate"
        here = window.edges.get(self.key)
        there = window.edges.get((*self._edge, "server"))
        return bool(here and there and there.calls and here.mean_ms - there.mean_ms > 0.5 * more)


def is_visit(side: str) -> bool:
    """Whether a call on this side is work that comes to the callee, rather than what it does in its course."""
    return side == "client" or side in _OUTSIDE
