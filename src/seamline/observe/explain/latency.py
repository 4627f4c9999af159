"""Where time went: in a module itself, on the way between two, in its database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from seamline.observe.explain.finding import Finding, milliseconds, share
from seamline.observe.explain.picture import Change, Picture, Slice
from seamline.observe.windows import Flow

SIGMAS_MIN: Final = 4.0
_FLOOR_SHARE: Final = 0.03
"""Changes of a module's time below this share of it are noise, however steady it was."""
_FLOOR_S: Final = 0.0005
_SHARE_MIN: Final = 0.08
_MATERIAL_SHARE: Final = 0.05
_FEW_OUTLIERS: Final = 0.3


class TimeFound:
    """The extras in time that stand out, of modules, of edges, and of what modules do in their databases."""

    def __init__(self, picture: Picture) -> None:
        self.own = {module: self._own(picture, module) for module in picture.modules}
        pairs = sorted({(caller, callee) for caller, callee, _ in picture.edges})
        self.gaps = {pair: self._gap(picture, *pair) for pair in pairs}
        self.sql = {module: self._sql(picture, module) for module in picture.modules}
        self.busy_s = sum(_busy_s(picture, module) for module in _doors(picture))
        self.total_s = sum(_extra(each) for each in self.own.values()) + sum(
            _extra(each) for each in self.gaps.values()
        )

    def _own(self, picture: Picture, module: str) -> Change:
        floor = max(_FLOOR_S, _FLOOR_SHARE * _busy_s(picture, module))
        return picture.change(lambda each: picture.extra_self_s(each, module), floor)

    def _gap(self, picture: Picture, caller: str, callee: str) -> Change:
        return picture.change(lambda each: picture.extra_gap_s(each, caller, callee), 2 * _FLOOR_S)

    def _sql(self, picture: Picture, module: str) -> Change:
        return picture.change(lambda each: picture.extra_sql_s(each, module), _FLOOR_S)


def _extra(each: Change) -> float:
    return each.extra if each.sigmas >= SIGMAS_MIN and each.extra > 0 else 0.0


def _busy_s(picture: Picture, module: str) -> float:
    """How many seconds a second the module usually serves."""
    spent = sum(flow.sum_ns for each in picture.before for flow in each.served.get(module, {}).values())
    return spent / 1e9 / max(sum(each.seconds for each in picture.before), 1e-9)


def _doors(picture: Picture) -> set[str]:
    return {module for each in picture.before for module in each.door}


def _most_are_slower(picture: Picture, module: str, method: str) -> bool:
    """Whether the usual call is as slow as the slow ones were: some outliers do not make a rare method slow."""
    before, after = picture.methods_of(module).get(method, (Flow(), Flow()))
    return bool(before.histogram and after.histogram) and after.quantile_ms(0.5) > before.quantile_ms(0.8)


def self_time(picture: Picture, found: TimeFound) -> Iterator[Finding]:
    for module, own in found.own.items():
        extra = _extra(own)
        part = extra / found.total_s if found.total_s else 0.0
        if part < _SHARE_MIN:
            continue
        method, before, after = slowest_method(picture, module)
        weight = 0.15 + 0.65 * part
        if extra < _MATERIAL_SHARE * found.busy_s and not _most_are_slower(picture, module, method):
            weight *= _FEW_OUTLIERS
        grew = f"{method} went from {milliseconds(before)} to {milliseconds(after)}" if method else "it became slower"
        yield Finding(
            module, "latency", weight,
            f"{share(part)} of the additional time is {module}'s own, without the calls that it makes: {grew}.",
            before, after, "ms", method, f"/modules/{module}",
        )  # fmt: skip


def edge_gap(found: TimeFound) -> Iterator[Finding]:
    """Client time less server time: what neither handler spent."""
    for (caller, callee), gap in found.gaps.items():
        extra = _extra(gap)
        part = extra / found.total_s if found.total_s else 0.0
        if part < _SHARE_MIN:
            continue
        yield Finding(
            callee, "network", 0.15 + 0.65 * part,
            f"{share(part)} of the additional time passes between {caller} and {callee}: the caller waits for it, "
            f"and the callee's handler does not spend it.",
            max(gap.before, 0.0) * 1000, gap.after * 1000, "ms/s", "", "/topology", caller,
        )  # fmt: skip


def database(picture: Picture, found: TimeFound) -> Iterator[Finding]:
    for module, sql in found.sql.items():
        extra, own = _extra(sql), _extra(found.own[module])
        if extra and extra > 0.3 * own:
            yield Finding(
                module, "database", 0.5 if own else 0.3,
                f"{module}'s statements take longer: {milliseconds(extra * 1000)} more in every second.",
                sql.before * 1000, sql.after * 1000, "ms/s", "", f"/modules/{module}",
            )  # fmt: skip
        wait = picture.change(lambda each, module=module: _waited_ms(each, module), 2.0)
        if wait.sigmas >= SIGMAS_MIN and wait.extra > 20.0:
            yield Finding(
                module, "database", 0.55,
                f"{module} waits for its database (a lock on the writer, or no free connection).",
                wait.before, wait.after, "ms/s", "", f"/modules/{module}",
            )  # fmt: skip


def slowest_method(picture: Picture, module: str) -> tuple[str, float, float]:
    """The method whose calls cost the most additional time, with its means in milliseconds before and after."""
    worst, most = ("", 0.0, 0.0), 0.0
    for method, (before, after) in picture.methods_of(module).items():
        more = (after.mean_ms - before.mean_ms) * after.calls
        if before.calls and more > most:
            worst, most = (method, before.mean_ms, after.mean_ms), more
    return worst


def _waited_ms(each: Slice, module: str) -> float:
    known = each.window.modules.get(module)
    return known.db_wait_ms / each.seconds if known is not None else 0.0
