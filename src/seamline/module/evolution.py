"""What changed between two descriptions of an application's contracts, and whom each change breaks. Pure.

Code of two ages meets while a new version is rolled out, and in a log of events for as long as it is kept. Four
meetings can go wrong:

    old caller, new callee    certain: the callee is updated first
    new caller, old callee    only where callers are updated before the callee: an order to keep
    old event, new reader     certain: the log is full of old events
    new event, old reader     certain: other modules' handlers run older code for a while

A change that breaks a certain meeting is ``breaking``; one that asks for an order, or for a look, needs ``care``; all
others are ``compatible``. An event whose ``version`` is raised and whose upcasters lead there is no longer met by new
readers in its old form; old readers put a new form that does not fit to their dead letters, which asks for the order
"readers first".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from seamline.module.differences import Comparison, Difference

OLD_CALLER = "old caller, new callee"
NEW_CALLER = "new caller, old callee"
OLD_EVENT = "old event, new reader"
NEW_EVENT = "new event, old reader"

Verdict = Literal["breaking", "care", "compatible"]
VERDICTS: tuple[Verdict, ...] = ("breaking", "care", "compatible")

_BESIDE = "leave it as it was, and add what is new beside it: a field with a default, or another method."
_CALLEE_FIRST = "Update the callee before its callers."
_READERS_FIRST = "Update the modules that handle it before the one that publishes it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change: where it is, what it is, and whom it breaks."""

    verdict: Verdict
    module: str
    what: Literal["contract", "method", "fault", "event"]
    name: str
    path: str = ""
    """Leads to a field: ``lines[].pieces``; in a method below ``->`` for its result."""
    fact: str
    breaks: tuple[str, ...] = ()
    """The meetings that go wrong; see this module."""
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "breaks": list(self.breaks)}


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """All that changed from one description to another, by module and name, the worst first within each."""
    found = [*_contracts(old, new), *_faults(old, new), *_events(old, new)]
    return sorted(found, key=lambda each: (each.module, each.what, each.name, VERDICTS.index(each.verdict), each.path))


def _placed(description: Mapping[str, Any], part: str) -> dict[str, tuple[str, Any]]:
    """Name to module and description."""
    return {
        name: (module, described)
        for module, parts in description["modules"].items()
        for name, described in parts[part].items()
    }


def _contracts(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    olds, news = _placed(old, "contracts"), _placed(new, "contracts")
    for name, (module, contract) in olds.items():
        if name not in news:
            yield _gone(module, "contract", name, OLD_CALLER, "Keep it until no caller is left.")
            continue
        home, now = news[name]
        if home != module:
            yield Change(
                verdict="breaking", module=home, what="contract", name=name, breaks=(OLD_CALLER, NEW_CALLER),
                fact=f"moved from module {module!r}, where old callers look for it",
                remedy=f"Let {module!r} provide it too, and call the new module, until no caller is left.",
            )  # fmt: skip
        for method, described in contract["methods"].items():
            if method in now["methods"]:
                comparison = Comparison(old["types"], new["types"])
                yield from _method(comparison, home, f"{name}.{method}", described, now["methods"][method])
            else:
                yield _gone(home, "method", f"{name}.{method}", OLD_CALLER, "Keep it until no caller is left.")
        for method in now["methods"]:
            if method not in contract["methods"]:
                yield Change(verdict="compatible", module=home, what="method", name=f"{name}.{method}", fact="new")
    for name, (module, _) in news.items():
        if name not in olds:
            yield Change(verdict="compatible", module=module, what="contract", name=name, fact="new")


def _gone(module: str, what: Literal["contract", "method", "event"], name: str, breaks: str, remedy: str) -> Change:
    return Change(
        verdict="breaking", module=module, what=what, name=name, fact="removed", breaks=(breaks,), remedy=remedy
    )


def _method(
    comparison: Comparison, module: str, name: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[Change]:
    def change(verdict: Verdict, fact: str, *breaks: str, remedy: str = "") -> Change:
        return Change(verdict=verdict, module=module, what="method", name=name, fact=fact, breaks=breaks, remedy=remedy)

    if old["kind"] != new["kind"]:
        fact = f"{old['kind'].replace('_', ' ')} → {new['kind'].replace('_', ' ')}"
        yield change("breaking", fact, OLD_CALLER, NEW_CALLER, remedy="Add another method beside it.")
        return
    yield from _marks(old, new, change)
    for difference in comparison.fields("", old["parameters"], new["parameters"]):
        yield _asked(module, name, difference)
    common = [p for p in old["parameters"] if p in new["parameters"]]
    if common != [p for p in new["parameters"] if p in common]:
        yield change("care", "parameters in another order", remedy="Look at callers that pass them by position.")
    if "items" in old:
        for difference in comparison.types("<-", old["items"], new["items"]):
            yield _asked(module, name, difference)
    for difference in comparison.types("->", old["result"], new["result"]):
        yield _answered(module, "method", name, difference)


def _marks(old: Mapping[str, Any], new: Mapping[str, Any], change: Any) -> Iterator[Change]:
    if old["idempotent"] and not new["idempotent"]:
        yield change(
            "breaking", "no longer idempotent", OLD_CALLER,
            remedy="Old callers still try it again after a failure: keep it idempotent, or add another method.",
        )  # fmt: skip
    elif new["idempotent"] and not old["idempotent"]:
        yield change("care", "idempotent now", NEW_CALLER, remedy=f"{_CALLEE_FIRST} They try it again.")
    elif old["readonly"] and not new["readonly"]:
        yield change("care", "no longer readonly", OLD_CALLER, remedy="Old callers may still ask twice at once.")
    elif new["readonly"] and not old["readonly"]:
        yield change("care", "readonly now", NEW_CALLER, remedy=f"{_CALLEE_FIRST} They may ask twice at once.")
    if old["timeout_s"] != new["timeout_s"]:
        yield change("compatible", f"timeout {_seconds(old['timeout_s'])} → {_seconds(new['timeout_s'])}")


def _seconds(seconds: float | None) -> str:
    return "by settings" if seconds is None else f"{seconds:g} s"


def _asked(module: str, name: str, difference: Difference) -> Change:
    """What callers write and the callee reads."""
    breaks = [OLD_CALLER] if not difference.new_reads_old or difference.dropped else []
    breaks += [] if difference.old_reads_new else [NEW_CALLER]
    return _judged(module, "method", name, difference, breaks)


def _answered(module: str, what: Literal["method", "fault"], name: str, difference: Difference) -> Change:
    """What the callee writes and callers read."""
    breaks = [OLD_CALLER] if not difference.old_reads_new or difference.dropped else []
    breaks += [] if difference.new_reads_old else [NEW_CALLER]
    return _judged(module, what, name, difference, breaks)


def _judged(
    module: str, what: Literal["method", "fault"], name: str, difference: Difference, breaks: list[str]
) -> Change:
    verdict: Verdict = "breaking" if OLD_CALLER in breaks else "care" if breaks or difference.default else "compatible"
    remedy = {
        "breaking": _BESIDE.capitalize(),
        "care": _CALLEE_FIRST if breaks else "Old callers still send the old one.",
    }
    return Change(
        verdict=verdict, module=module, what=what, name=name, path=difference.path, fact=difference.fact,
        breaks=tuple(breaks), remedy=remedy.get(verdict, ""),
    )  # fmt: skip


def _faults(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for module, parts in new["modules"].items():
        if module not in old["modules"]:
            continue
        before = old["modules"][module]["faults"]
        for name, fault in parts["faults"].items():
            if name not in before:
                yield Change(
                    verdict="care", module=module, what="fault", name=name, fact="new", breaks=(OLD_CALLER,),
                    remedy="Callers that do not know it see InternalError: update them before it is raised.",
                )  # fmt: skip
                continue
            comparison = Comparison(old["types"], new["types"])
            for difference in comparison.fields("", before[name]["fields"], fault["fields"]):
                yield _answered(module, "fault", name, difference)
        for name in before:
            if name not in parts["faults"]:
                yield Change(
                    verdict="breaking", module=module, what="fault", name=name, fact="removed", breaks=(NEW_CALLER,),
                    remedy="Callers that catch it are left without it: keep it until none is left.",
                )  # fmt: skip


def _events(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    for module, parts in old["modules"].items():
        after: Mapping[str, Any] = new["modules"].get(module, {}).get("events", {})
        for name, event in parts["events"].items():
            if name in after:
                yield from _event(Comparison(old["types"], new["types"]), module, name, event, after[name])
            else:
                yield _gone(
                    module, "event", name, OLD_EVENT, "Keep it until the last of it has left every log and handler."
                )
    for module, parts in new["modules"].items():
        before: Mapping[str, Any] = old["modules"].get(module, {}).get("events", {})
        for name in parts["events"]:
            if name not in before:
                yield Change(verdict="compatible", module=module, what="event", name=name, fact="new")


def _event(
    comparison: Comparison, module: str, name: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[Change]:
    def change(verdict: Verdict, fact: str, *breaks: str, path: str = "", remedy: str = "") -> Change:
        return Change(
            verdict=verdict, module=module, what="event", name=name, path=path, fact=fact, breaks=breaks, remedy=remedy
        )

    was, now = int(old["version"]), int(new["version"])
    missing = [version for version in range(1, now) if version not in new["upcasts"]]
    lost = [version for version in missing if version >= was or version in old["upcasts"]]
    if now < was:
        remedy = f"Leave it at {was}: events of that version are in the log."
        yield change("breaking", f"version {was} → {now}", OLD_EVENT, remedy=remedy)
    elif lost:
        fact = f"nothing brings version {lost[0]} to {lost[0] + 1}"
        yield change("breaking", fact, OLD_EVENT, remedy=f"Declare `@{name}.upcast({lost[0]})`.")
    elif now > was:
        yield change("compatible", f"version {was} → {now}, with upcasters")
    if old["key"] != new["key"]:
        fact = f"key {old['key'] or 'none'} → {new['key'] or 'none'}"
        remedy = "Events before and after are in no order to each other: publish another event beside it."
        yield change("breaking", fact, OLD_EVENT, remedy=remedy) if old["key"] else change("compatible", fact)
    if new.get("compacted", False) != old.get("compacted", False):
        if new.get("compacted"):
            yield change("care", "compacted now", remedy="Handlers that are behind are given only the newest of a key.")
        else:
            yield change("compatible", "no longer compacted")
    upcast = now > was and not lost
    for difference in comparison.fields("", old["fields"], new["fields"]):
        breaks = [] if difference.new_reads_old or upcast else [OLD_EVENT]
        breaks += [] if difference.old_reads_new and not difference.dropped else [NEW_EVENT]
        verdict: Verdict = "compatible"
        remedy = ""
        if breaks and not upcast:
            verdict, remedy = "breaking", f"Raise it to `version={was + 1}` with `@{name}.upcast({was})`, or {_BESIDE}"
        elif breaks:
            verdict, remedy = "care", _READERS_FIRST
        elif difference.default:
            verdict, remedy = "care", "Old events that lack the field are read with the new one."
        yield change(verdict, difference.fact, *breaks, path=difference.path, remedy=remedy)
