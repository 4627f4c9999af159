"""What differs between two types on the wire, and who can no longer read whom.

Every difference is judged twice: can the new code read what the old code wrote, and the old code what the new code
wrote? What that means depends on where the type stands (see ``evolution``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

from seamline.kernel.codec import with_article

_TEXTS = ("uuid", "decimal", "datetime", "date", "time", "duration", "bytes")
_READ_AS = {("int", "number"), ("int", "decimal"), *((each, "text") for each in _TEXTS)}
"""A value of the first, as JSON has it, is one of the second."""
_NO_LIMITS: Mapping[str, Any] = {}
_LOWER, _UPPER = ("gt", "ge", "min_length"), ("lt", "le", "max_length")


class Difference(NamedTuple):
    """One difference. ``path`` leads to it: ``lines[].pieces``."""

    path: str
    fact: str
    new_reads_old: bool = True
    old_reads_new: bool = True
    dropped: bool = False
    """A field is gone: the other side reads the rest, and silently not this."""
    default: bool = False
    """Only what stands in for a value that is left out."""


class Comparison:
    """Of two descriptions' types; each side's classes are looked up in its own table."""

    def __init__(self, old_types: Mapping[str, Any], new_types: Mapping[str, Any]) -> None:
        self._old = old_types
        self._new = new_types
        self._open = set[tuple[str, str]]()

    def fields(
        self, path: str, old: Mapping[str, Any], new: Mapping[str, Any], *, closed: tuple[bool, bool] = (False, False)
    ) -> Iterator[Difference]:
        """Of two tables of fields. ``closed``: whether the old and the new reader refuse fields they do not know."""
        gone, come = [name for name in old if name not in new], [name for name in new if name not in old]
        for name in gone:
            guess = [other for other in come if new[other]["type"] == old[name]["type"]]
            hint = f"; renamed to {guess[0]!r}?" if len(gone) == len(guess) == 1 else ""
            required = bool(old[name]["required"])
            yield Difference(_join(path, name), f"removed{hint}", not closed[1], not required, dropped=True)
        for name in come:
            required = bool(new[name]["required"])
            fact = "new, and required" if required else f"new, {_default(new[name])}"
            yield Difference(_join(path, name), fact, not required, not closed[0])
        for name in old:
            if name in new:
                yield from self._field(_join(path, name), old[name], new[name])

    def types(self, path: str, old: Any, new: Any) -> Iterator[Difference]:
        """Of two types."""
        (old, old_limits), (new, new_limits) = _bare(old), _bare(new)
        if old_limits != new_limits:
            yield Difference(
                path,
                f"{_limits(old_limits)} → {_limits(new_limits)}",
                _implies(old_limits, new_limits),
                _implies(new_limits, old_limits),
            )
        kinds = (_kind(old), _kind(new))
        if "union" in kinds:
            yield from self._unions(path, _members(old), _members(new), old, new)
        elif kinds == ("ref", "ref"):
            yield from self._classes(path, old["ref"], new["ref"])
        elif kinds == ("list", "list"):
            yield from self.types(f"{path}[]", old["list"], new["list"])
        elif kinds == ("map", "map"):
            yield from self.types(f"{path}{{key}}", old["map"][0], new["map"][0])
            yield from self.types(f"{path}{{}}", old["map"][1], new["map"][1])
        elif kinds == ("tuple", "tuple") and len(old["tuple"]) == len(new["tuple"]):
            for place, (one, other) in enumerate(zip(old["tuple"], new["tuple"], strict=True)):
                yield from self.types(f"{path}[{place}]", one, other)
        elif kinds == ("tagged", "tagged"):
            yield from self._tagged(path, old["tagged"], new["tagged"])
        elif kinds == ("enum", "enum"):
            yield from _enums(path, old["enum"], new["enum"])
        elif old != new:
            yield Difference(path, f"{shown(old)} → {shown(new)}", _reads(old, new), _reads(new, old))

    def _field(self, path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
        yield from self.types(path, old["type"], new["type"])
        if old["required"] != new["required"]:
            now = bool(new["required"])
            fact = "may no longer be left out" if now else f"may be left out now, {_default(new)}"
            yield Difference(path, fact, not now, old_reads_new=now or "default" in new)
        elif not new["required"] and old.get("default") != new.get("default"):
            yield Difference(path, f"{_default(old)} → {_default(new)}", default=True)

    def _classes(self, path: str, old: str, new: str) -> Iterator[Difference]:
        if (old, new) in self._open:  # a recursive type: what differs is said where it was first met
            return
        self._open.add((old, new))
        one, other = self._old[old], self._new[new]
        closed = (bool(one.get("closed")), bool(other.get("closed")))
        yield from self.fields(path, one["fields"], other["fields"], closed=closed)
        if closed == (False, True):
            yield Difference(path, "refuses fields that it does not know now", new_reads_old=False)
        self._open.discard((old, new))

    def _unions(self, path: str, olds: list[Any], news: list[Any], old: Any, new: Any) -> Iterator[Difference]:
        if ("null" in olds) != ("null" in news):
            now = "null" in news
            yield Difference(path, "may be null now" if now else "may no longer be null", now, not now)
        olds, news = [t for t in olds if t != "null"], [t for t in news if t != "null"]
        if len(olds) == len(news) == 1:
            yield from self.types(path, olds[0], news[0])
            return
        forth = all(any(self._fits(one, other, old_writes=True) for other in news) for one in olds)
        back = all(any(self._fits(one, other, old_writes=False) for one in olds) for other in news)
        if not forth or not back or len(olds) != len(news):
            yield Difference(path, f"{shown(old)} → {shown(new)}", forth, back)

    def _fits(self, old: Any, new: Any, *, old_writes: bool) -> bool:
        found = list(self.types("", old, new))
        return all(each.new_reads_old if old_writes else each.old_reads_new for each in found)

    def _tagged(self, path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
        for name in old:
            if name in new:
                yield from self.types(f"{path}<{name}>", old[name], new[name])
            else:
                yield Difference(path, f"is never {with_article(name)} any more", new_reads_old=False)
        for name in new:
            if name not in old:
                yield Difference(path, f"may be {with_article(name)} now", old_reads_new=False)


def shown(described: Any) -> str:
    """A type as people write it."""
    bare, limits = _bare(described)
    if limits:
        return f"{shown(bare)} ({_limits(limits)})"
    if isinstance(bare, str):
        return bare
    kind, inner = next(iter(cast("dict[str, Any]", bare).items()))
    match kind:
        case "ref":
            return str(inner).rpartition(".")[2]
        case "enum":
            return " | ".join(repr(value) for value in inner)
        case "union":
            return " | ".join(map(shown, inner))
        case "tagged":
            return " | ".join(inner)
        case "list":
            return f"list[{shown(inner)}]"
        case _:
            return f"{kind}[{', '.join(map(shown, inner))}]"


def _enums(path: str, old: list[Any], new: list[Any]) -> Iterator[Difference]:
    gone, come = [v for v in old if v not in new], [v for v in new if v not in old]
    if gone:
        yield Difference(path, f"is never {_either(gone)} any more", new_reads_old=False)
    if come:
        yield Difference(path, f"may be {_either(come)} now", old_reads_new=False)


def _either(values: list[Any]) -> str:
    return " or ".join(repr(value) for value in values)


def _kind(described: Any) -> str:
    return "plain" if isinstance(described, str) else next(iter(cast("dict[str, Any]", described)))


def _members(described: Any) -> list[Any]:
    return list(described["union"]) if _kind(described) == "union" else [described]


def _bare(described: Any) -> tuple[Any, Mapping[str, Any]]:
    if _kind(described) == "limited":
        return described["limited"], described["limits"]
    return described, _NO_LIMITS


def _reads(written: Any, reader: Any) -> bool:
    """Whether a value of ``written`` fits ``reader``, where they are of different kinds."""
    if reader == "any":
        return True
    if _kind(written) == "enum":
        plain = {"text" if isinstance(value, str) else "int" for value in written["enum"]}
        return all(each == reader or (each, reader) in _READ_AS for each in plain)
    return (written, reader) in _READ_AS if isinstance(written, str) and isinstance(reader, str) else False


def _implies(written: Mapping[str, Any], reader: Mapping[str, Any]) -> bool:
    """Whether all that keeps within one side's limits keeps within the other's."""
    for name, limit in reader.items():
        own = written.get(name)
        if own is None:
            return False
        if own != limit and not (name in _LOWER and own > limit) and not (name in _UPPER and own < limit):
            return False
    return True


def _limits(limits: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in limits.items()) or "no limits"


def _default(field: Mapping[str, Any]) -> str:
    return f"default {field['default']!r}" if "default" in field else "with a default made anew"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
