"""What was used up: CPU by module, the event loop, memory.

A loop that stands still also tells late, and all at once: what was used is a mean over the windows, not a median.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import Final

from seamline.observe.explain.finding import Finding, share
from seamline.observe.explain.interface import Profiles
from seamline.observe.explain.latency import SIGMAS_MIN
from seamline.observe.explain.picture import Change, Picture, Slice, hosts
from seamline.observe.windows import ModuleWindow

_CORES_MIN: Final = 0.04
_BLOCKED_MIN: Final = 0.01
_LAG_MS_MIN: Final = 5.0
_MB: Final = 1024 * 1024
_GROWTH_MB_MIN: Final = 16.0
_RECENT: Final = 5
"""Windows in which a growth goes on; when it began is hard to tell."""


class Used:
    """What stands out in what modules and workloads used."""

    def __init__(self, picture: Picture) -> None:
        modules = sorted({name for each in picture.before + picture.after for name in each.window.modules if name})
        self.hosts = hosts(picture.before + picture.after, {*modules, *picture.modules})
        self.cpu = {module: _cpu(picture, module) for module in modules}
        self.blocked = {module: _blocked(picture, module) for module in modules}
        self.lag = {name: _lag(picture, name) for name in self.hosts}

    def late(self, module: str) -> bool:
        """Whether an event loop that the module runs on turns late now, and did not before."""
        return any(
            lag.sigmas >= SIGMAS_MIN and lag.extra > _LAG_MS_MIN
            for name, lag in self.lag.items()
            if module in self.hosts[name]
        )

    def beside(self, module: str) -> set[str]:
        """The modules that share a process with this one, itself among them."""
        return {other for hosted in self.hosts.values() if module in hosted for other in hosted}


def _of(each: Slice, module: str, what: Callable[[ModuleWindow], float]) -> float:
    known = each.window.modules.get(module)
    return what(known) / each.seconds if known is not None else 0.0


def _cpu(picture: Picture, module: str) -> Change:
    """Cores used; growth that the traffic alone explains counts as usual."""
    found = picture.change(lambda each: _of(each, module, lambda known: known.cpu_ns / 1e9), _CORES_MIN / 4, fmean)
    calls = picture.change(lambda each: each.calls_served(module) / each.seconds, 1.0)
    if calls.before > 0 and calls.ratio > 1 and found.before > 0:
        expected = found.before * calls.ratio
        return Change(expected, found.after, found.sigmas if found.after > expected else 0.0)
    return found


def _blocked(picture: Picture, module: str) -> Change:
    return picture.change(lambda each: _of(each, module, lambda known: known.blocked_ns / 1e9), _BLOCKED_MIN / 2, fmean)


def _lag(picture: Picture, workload: str) -> Change:
    def lag(each: Slice) -> float | None:
        known = each.window.workloads.get(workload)
        return known.loop_lag_ms if known is not None else None

    return picture.change(lag, 1.0)


def cpu(picture: Picture, used: Used, profile: Profiles | None) -> Iterator[Finding]:
    extras = {
        module: each.extra
        for module, each in used.cpu.items()
        if each.sigmas >= SIGMAS_MIN and each.extra > _CORES_MIN and each.ratio > 1.3
    }
    total = sum(extras.values())
    for module, extra in extras.items():
        part = extra / total
        top = _top_stack(picture, module, lambda known: known.stacks) or _profiled(picture, module, profile)
        yield Finding(
            module, "cpu", part * (0.25 + 0.5 * min(extra / 0.25, 1.0)),
            f"{module} uses {extra:.2f} of a core more than its traffic explains"
            + (f", most of it in {top}." if top else "."),
            used.cpu[module].before, used.cpu[module].after, "cores", "", f"/modules/{module}",
        )  # fmt: skip


def blocked(picture: Picture, used: Used) -> Iterator[Finding]:
    extras = {
        module: each.extra
        for module, each in used.blocked.items()
        if each.sigmas >= SIGMAS_MIN and each.extra > _BLOCKED_MIN
    }
    total = sum(extras.values())
    for module, extra in extras.items():
        part = extra / total
        top = _top_stack(picture, module, lambda known: known.blocked_stacks)
        yield Finding(
            module, "blocked", part * (0.45 + 0.4 * min(extra / 0.1, 1.0)),
            f"The event loop stands still in {module} for {share(min(extra, 1.0))} of the time"
            + (f", in {top}." if top else "."),
            used.blocked[module].before, used.blocked[module].after, "s/s", "", f"/modules/{module}",
        )  # fmt: skip


def loop_lag(used: Used, spent: Mapping[str, float]) -> Iterator[Finding]:
    """A late event loop speaks against who spends its time, or against the only module there."""
    for name, lag in used.lag.items():
        if lag.sigmas < SIGMAS_MIN or lag.extra <= _LAG_MS_MIN:
            continue
        hosted = used.hosts[name]
        at_fault = max(hosted, key=lambda module: spent.get(module, 0.0), default="")
        if at_fault and (len(hosted) == 1 or spent.get(at_fault, 0.0) > 0):
            yield Finding(
                at_fault, "cpu", 0.3 if len(hosted) == 1 else 0.15,
                f"The event loop of workload {name} turns late.",
                lag.before, lag.after, "ms", "", "/topology",
            )  # fmt: skip


def memory(picture: Picture, used: Used, spent: Mapping[str, float]) -> Iterator[Finding]:
    for name, hosted in used.hosts.items():
        held = _rss_mb(picture.before + picture.after, name)
        earlier, recent = held[:-_RECENT], held[-_RECENT:]
        if len(earlier) < 2 or not picture.after:
            continue
        each_s = picture.after[-1].seconds
        usual, rate = _slope(earlier) / each_s, _slope(recent) / each_s
        if recent[-1] - median(earlier) < _GROWTH_MB_MIN or rate < 4 * max(usual, 0.05):
            continue
        at_fault = max(hosted, key=lambda module: spent.get(module, 0.0), default="")
        alone = len(hosted) == 1
        if alone:
            weight, said = 0.7, ""
        elif spent.get(at_fault, 0.0) > 0:
            weight, said = 0.45, " Of the modules in it, this one has begun to use more of the processor."
        else:
            at_fault, weight, said = (
                "",
                0.35,
                " Which of the modules in it keeps the memory cannot be told from outside.",
            )
        yield Finding(
            at_fault, "memory", weight,
            f"Workload {name} grows by {rate:.1f} MB a second.{said}",
            median(earlier), recent[-1], "MB", "", "/topology",
        )  # fmt: skip


def _rss_mb(slices: Sequence[Slice], name: str) -> list[float]:
    known = (each.window.workloads.get(name) for each in slices)
    return [each.rss_bytes / _MB for each in known if each is not None and each.rss_bytes > 0]


def _slope(values: Sequence[float]) -> float:
    """The median growth from one value to the next (Theil and Sen's, of neighbours): one jump is not a trend."""
    return median(b - a for a, b in pairwise(values)) if len(values) > 1 else 0.0


def _top_stack(picture: Picture, module: str, what: Callable[[ModuleWindow], dict[str, int]]) -> str:
    """The innermost frame of the stack that grew most."""
    grown: Counter[str] = Counter()
    for sign, slices in ((-1.0, picture.before), (1.0, picture.after)):
        seconds = max(sum(each.seconds for each in slices), 1e-9)
        for each in slices:
            known = each.window.modules.get(module)
            for stack, spent in what(known).items() if known is not None else ():
                grown[stack.rpartition(";")[2]] += int(sign * spent / seconds)
    (frame, more), *_ = grown.most_common(1) or [("", 0)]
    return frame if more > 0 else ""


def _profiled(picture: Picture, module: str, profile: Profiles | None) -> str:
    found = profile(module, *picture.span_ns) if profile is not None else []
    return found[0][0].rpartition(";")[2] if found else ""
