"""How calls belong together: who suddenly calls less or more than its own work asks for, and who comes more often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from typing import Final

from seamline.observe.explain.finding import Finding, milliseconds
from seamline.observe.explain.picture import Picture, Slice
from seamline.observe.windows import Flow

_SIGMAS: Final = 5.0
_FEWER: Final = 0.55
_MORE: Final = 1.6
_FAST: Final = 0.4
_FLOOD: Final = 1.5
_CALLS_MIN: Final = 8
_MIX_MAX: Final = 0.15
"""By how much the share of one method may have changed."""


def call_profile(picture: Picture) -> Iterator[Finding]:
    """Callees that are suddenly not called, or twice as often, for the same work of their caller."""
    for caller in picture.modules:
        work_before, work_after = _work(picture.before, caller), _work(picture.after, caller)
        if min(work_before, work_after) < _CALLS_MIN or not _same_work(picture, caller):
            continue
        changed: dict[str, tuple[float, float]] = {}
        for callee in sorted(picture.calls_to.get(caller, ())):
            before, after = _calls(picture.before, caller, callee), _calls(picture.after, caller, callee)
            expected = before / work_before * work_after
            enough = max(expected, after) >= _CALLS_MIN
            if enough and abs(after - expected) > _SIGMAS * sqrt(max(expected, 1.0)):
                changed[callee] = (before / work_before, after / work_after)
        changed = {
            callee: each for callee, each in changed.items() if not _FEWER < each[1] / max(each[0], 1e-9) < _MORE
        }
        if not changed:
            continue
        callee = max(changed, key=lambda each: abs(changed[each][1] - changed[each][0]))
        usual, now = changed[callee]
        others = f", and {len(changed) - 1} others likewise" if len(changed) > 1 else ""
        yield Finding(
            caller, "code", 0.4,
            f"For the same work {caller} calls {callee} {'more' if now > usual else 'less'} often: {usual:.2f} calls "
            f"of it for each that it serves became {now:.2f}{others}.",
            usual, now, "calls", "", f"/modules/{caller}", callee, "call profile",
        )  # fmt: skip


def _same_work(picture: Picture, module: str) -> bool:
    """Whether what is asked of the module is composed as before, so that its own calls can be compared."""
    methods = picture.methods_of(module)
    before, after = (sum(each[side].calls for each in methods.values()) for side in (0, 1))
    return all(abs(one.calls / before - two.calls / after) < _MIX_MAX for one, two in methods.values())


def early_return(picture: Picture) -> Iterator[Finding]:
    """Answers that come far sooner than the work would take, without an error.

    Where several modules answer sooner, it is the time before that was slow, and nobody leaves anything out.
    """
    sooner: dict[str, tuple[str, float, float]] = {}
    for module in picture.modules:
        for method, (before, after) in picture.methods_of(module).items():
            enough = before.calls >= _CALLS_MIN and after.calls >= _CALLS_MIN
            if not enough or after.errors > 0.1 * after.calls or before.errors > 0.1 * before.calls:
                continue
            if before.mean_ms > 0.02 and after.mean_ms < _FAST * before.mean_ms and _apart(before, after):
                sooner.setdefault(module, (method, before.mean_ms, after.mean_ms))
    # Who calls one that answers sooner does so for that reason.
    deepest = [module for module in sooner if not picture.calls_to.get(module, set()) & sooner.keys() - {module}]
    for module in deepest:
        method, usual, now = sooner[module]
        yield Finding(
            module, "code", 0.5 if len(deepest) == 1 else 0.15,
            f"{method} answers without an error in {milliseconds(now)} where it took {milliseconds(usual)}: "
            f"it seems to leave out its work.",
            usual, now, "ms", method, f"/modules/{module}", sign="early return",
        )  # fmt: skip


def fewer_statements(picture: Picture) -> Iterator[Finding]:
    """For the same work hardly any statements in its database any more."""
    for module in picture.modules:
        work_before, work_after = _work(picture.before, module), _work(picture.after, module)
        if min(work_before, work_after) < _CALLS_MIN or not _same_work(picture, module):
            continue
        before, after = _statements(picture.before, module), _statements(picture.after, module)
        expected = before / work_before * work_after
        if expected >= 2 * _CALLS_MIN and after < _FAST * expected:
            yield Finding(
                module, "code", 0.5,
                f"For the same work {module} asks its database {before / work_before:.2f} times for each call that it "
                f"serves, and now {after / work_after:.2f} times: it seems to leave out its work.",
                before / work_before, after / work_after, "statements", "", f"/modules/{module}", sign="early return",
            )  # fmt: skip


def _statements(slices: Sequence[Slice], module: str) -> int:
    return sum(flow.calls for each in slices for flow in each.sql.get(module, {}).values())


def _apart(before: Flow, after: Flow) -> bool:
    """Whether hardly any call is as slow as the usual one was: a mean alone may be that of a few outliers."""
    return after.quantile_ms(0.75) < before.quantile_ms(0.3) if before.histogram and after.histogram else True


def traffic(picture: Picture) -> Iterator[Finding]:
    doors = sorted({module for each in picture.before + picture.after for module in each.door})
    for module in doors:
        rate = picture.change(lambda each, module=module: _door_per_s(each, module), 0.5)
        if rate.sigmas >= _SIGMAS and rate.ratio >= _FLOOD:
            more = (
                f"{rate.ratio:.1f} times as many requests" if rate.before > 0 else "Requests that were not there before"
            )
            yield Finding(
                module, "traffic", min(0.35 + 0.3 * (rate.ratio - 1), 0.85),
                f"{more} come to {module}.",
                rate.before, rate.after, "requests/s", "", "/topology",
            )  # fmt: skip


def _door_per_s(each: Slice, module: str) -> float:
    flow = each.door.get(module)
    return flow.calls / each.seconds if flow is not None else 0.0


def _work(slices: Sequence[Slice], module: str) -> int:
    return sum(each.calls_served(module) for each in slices)


def _calls(slices: Sequence[Slice], caller: str, callee: str) -> int:
    return sum(flow.calls for each in slices for key, flow in each.made.get(caller, {}).items() if key[1] == callee)
