"""Promises (SLOs): how fast the errors that they allow are being used up, and what is left of them.

An answer is good if it did not fail and, where the promise says so, was fast enough. The burn rate is the share of bad
answers over the share that is allowed; 1 uses the budget up exactly by the end of its window. Each alarm looks at a
long window, so that a blip does not count, and at a twelfth of it, so that it ends soon after the trouble: "The Site
Reliability Workbook", chapter 5, "Multiwindow, Multi-Burn-Rate Alerts".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from seamline.kernel.settings.observe import SloSettings
from seamline.kernel.signal.metrics import BUCKETS, bucket_ms
from seamline.observe.detect.board import Board
from seamline.observe.incidents import Symptom
from seamline.observe.windows import EdgeKey, Flow, Window

BAD_MIN: Final = 5
"""Fewer bad answers than these in the long window say nothing."""


@dataclass(frozen=True, slots=True)
class Alarm:
    name: str
    long_s: float
    short_s: float
    burn: float


ALARMS: Final = (
    Alarm("at once", 60, 10, 30.0),
    Alarm("1 h", 3_600, 300, 14.4),
    Alarm("6 h", 21_600, 1_800, 6.0),
    Alarm("3 d", 259_200, 21_600, 1.0),
)
"""The last three are the workbook's, which spend 2 %, 5 % and 10 % of thirty days' budget; the first is for what fails
altogether. A long window of which less is known is judged by that, if it is at least as much as the short one."""

_FINE_S: Final = 10
_COARSE_S: Final = 300


@dataclass(frozen=True, slots=True)
class PromiseState:
    """How a promise stands. ``burns`` has the burn rate by the alarm's name, over its long window."""

    name: str
    target: str
    objective: float
    latency_ms: float
    window_days: float
    good: int
    bad: int
    budget_left: float
    """Share of what may go wrong that has not; below 0 it is broken."""
    burns: Mapping[str, float]
    burning: str
    """The name of the alarm that is on, or nothing."""


@dataclass(slots=True)
class _Counts:
    """Good and bad answers by slots of time, newest last."""

    slot_s: float
    slots: deque[list[float]]
    """Each begins, good, bad."""

    def add(self, at_s: float, good: int, bad: int) -> None:
        begin = at_s // self.slot_s * self.slot_s
        if not self.slots or begin > self.slots[-1][0]:
            self.slots.append([begin, good, bad])
        else:  # also where a clock was set back: it counts where the newest does
            self.slots[-1][1] += good
            self.slots[-1][2] += bad

    def since(self, begin_s: float) -> tuple[int, int]:
        good = bad = 0.0
        for slot in reversed(self.slots):
            if slot[0] + self.slot_s <= begin_s:
                break
            good += slot[1]
            bad += slot[2]
        return int(good), int(bad)


@dataclass(slots=True)
class _Promise:
    name: str
    slo: SloSettings
    fine: _Counts = field(init=False)
    coarse: _Counts = field(init=False)
    burning: Alarm | None = None
    slow_from: int = BUCKETS

    def __post_init__(self) -> None:
        self.fine = _Counts(_FINE_S, deque(maxlen=int(3_600 / _FINE_S) + 1))
        days = max(self.slo.window_days, 3.0)
        self.coarse = _Counts(_COARSE_S, deque(maxlen=int(days * 86_400 / _COARSE_S) + 1))
        if self.slo.latency_ms:
            self.slow_from = next((b for b in range(BUCKETS) if bucket_ms(b) > self.slo.latency_ms), BUCKETS)

    @property
    def site(self) -> str:
        """The module it speaks of, as far as its target says."""
        kind, colon, rest = self.slo.target.partition(":")
        return rest if colon else kind.partition(".")[0].lower()

    def counts(self, flow: Flow) -> tuple[int, int]:
        bad = flow.errors
        if self.slow_from < BUCKETS:
            slow = sum(count for bucket, count in flow.histogram.items() if bucket >= self.slow_from)
            bad = max(bad, slow)  # what failed slowly is not counted twice
        return flow.calls - bad, bad

    def since(self, now_s: float, length_s: float) -> tuple[int, int]:
        return (self.fine if length_s <= 3_600 else self.coarse).since(now_s - length_s)

    def known_s(self, now_s: float) -> float:
        return now_s - self.coarse.slots[0][0] if self.coarse.slots else 0.0

    def burn(self, now_s: float, length_s: float) -> tuple[float, int]:
        good, bad = self.since(now_s, length_s)
        return (bad / (good + bad) / (1 - self.slo.objective) if good + bad else 0.0), bad


class Promises:
    """Counts the answers that promises are about. ``feed`` says which promise newly burns; ``states`` how all stand."""

    def __init__(self, slos: Mapping[str, SloSettings], board: Board | None = None) -> None:
        self._promises = [_Promise(name, slo) for name, slo in slos.items()]
        self._board = board or Board()
        self._sites: dict[str, str] = {}
        self._now_s = 0.0

    def feed(self, window: Window) -> None:
        self._now_s = window.end_ns / 1e9
        for promise in self._promises:
            good = bad = 0
            for key, flow in window.edges.items():
                if _concerns(promise.slo.target, key, window):
                    well, ill = promise.counts(flow)
                    good, bad = good + well, bad + ill
                    self._sites[promise.name] = key[1]
            self._count(promise, window.at_ns / 1e9, good, bad)
            self._judge(promise, window)

    def remember(self, name: str, past: Iterable[tuple[int, int, int]]) -> None:
        """What the store still knows: begin in nanoseconds, good and bad, oldest first."""
        for promise in self._promises:
            if promise.name == name:
                for at_ns, good, bad in past:
                    self._count(promise, at_ns / 1e9, good, bad)

    def states(self) -> list[PromiseState]:
        return [self._state(promise) for promise in self._promises]

    def _count(self, promise: _Promise, at_s: float, good: int, bad: int) -> None:
        if good or bad:
            promise.fine.add(at_s, good, bad)
            promise.coarse.add(at_s, good, bad)

    def _state(self, promise: _Promise) -> PromiseState:
        slo = promise.slo
        good, bad = promise.coarse.since(self._now_s - slo.window_days * 86_400)
        allowed = (good + bad) * (1 - slo.objective)
        left = 1.0 - bad / allowed if allowed else 1.0
        burns = {alarm.name: promise.burn(self._now_s, alarm.long_s)[0] for alarm in ALARMS}
        burning = promise.burning.name if promise.burning else ""
        return PromiseState(
            promise.name, slo.target, slo.objective, slo.latency_ms, slo.window_days, good, bad, left, burns, burning
        )

    def _judge(self, promise: _Promise, window: Window) -> None:
        now_s, series = self._now_s, f"SLO {promise.name}"
        if promise.burning is not None:
            if promise.burn(now_s, promise.burning.short_s)[0] < promise.burning.burn:
                promise.burning = None
                self._board.end(series)
            return
        for alarm in ALARMS:
            burn, bad = promise.burn(now_s, alarm.long_s)
            if promise.known_s(now_s) < alarm.short_s or bad < BAD_MIN:
                continue
            if burn < alarm.burn or promise.burn(now_s, alarm.short_s)[0] < alarm.burn:
                continue
            promise.burning = alarm
            site = self._sites.get(promise.name, promise.site)
            began_ns = window.end_ns - int(alarm.short_s * 1e9)
            self._board.begin(
                Symptom(series, "slo", site, None, 1.0, burn, "burn", round(burn, 1), began_ns, window.end_ns)
            )
            return


def _concerns(target: str, key: EdgeKey, window: Window) -> bool:
    _, callee, method, side = key
    kind, colon, rest = target.partition(":")
    if not colon:
        return method == target and (side == "client" or (side == "server" and _only_here(key, window)))
    if callee != rest:
        return False
    if kind == "http":
        return side == "http"
    return side == "client" or (side == "server" and _only_here(key, window))


def _only_here(key: EdgeKey, window: Window) -> bool:
    return (key[0], key[1], key[2], "client") not in window.edges
