"""TOML tables read into dataclasses, each finding with its line, the value and the nearest right name."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from seamline.kernel.settings.errors import BadValueError, UnknownKeyError, WrongTypeError

FILE_NAME = "seamline.toml"
T = TypeVar("T")
_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def choices(given: str, known: Iterable[str]) -> str:
    """A remedy: the nearest right name, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(names) or 'none'}."


@lru_cache(maxsize=64)
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


class TableReader:
    """One reading: knows the text, so that a finding names its line, and the environment's overrides."""

    def __init__(self, text: str, environment: Mapping[str, str]) -> None:
        self._lines = text.splitlines()
        self._overrides = {
            name.removeprefix("SEAMLINE_"): value for name, value in environment.items() if name.startswith("SEAMLINE_")
        }

    def place(self, section: str, key: str | None = None) -> str:
        """Where a key stands: file, line (if it can be found), section and key."""
        line = self._line(section, key)
        where = f"{FILE_NAME}:{line}" if line else FILE_NAME
        return " ".join(part for part in (where, section and f"[{section}]", key) if part)

    def _line(self, section: str, key: str | None) -> int | None:
        header, current = None, ""
        for number, text in enumerate(self._lines, 1):
            if opened := re.match(r"\s*\[\[?([^\]]+)\]\]?", text):
                current = opened[1].replace('"', "").replace("'", "").replace(" ", "")
                if current == section:
                    header = header or number
                elif key and current == f"{section}.{key}":
                    return number
            elif key and current == section and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", text):
                return number
        return header

    def table(self, tables: Mapping[str, Any], key: str, section: str | None = None) -> dict[str, Any]:
        """The table ``key``, or an empty one."""
        value = tables.get(key, {})
        if not isinstance(value, dict):
            raise WrongTypeError(
                f"{key} is {value!r}, not a table",
                f"Write [{section or key}].",
                place=self.place(section or key),
            )
        return cast("dict[str, Any]", value)

    def known(self, table: Iterable[str], names: Collection[str], section: str) -> None:
        """Refuse a key that nothing reads."""
        for key in table:
            if key not in names:
                what = f"unknown key {key!r}" if section else f"unknown section [{key}]"
                raise UnknownKeyError(
                    what, choices(key, names), place=self.place(section or key, key if section else None)
                )

    def section(self, kind: type[T], section: str, table: Mapping[str, Any], skip: Collection[str] = ()) -> T:
        """``table`` and its overrides as a ``kind``."""
        names = {item.name for item in fields(cast("Any", kind))} - set(skip)
        return kind(**self.values(kind, section, table, names))

    def values(
        self,
        kind: type,
        section: str,
        table: Mapping[str, Any],
        names: Collection[str] | None = None,
        *,
        overrides: bool = True,
    ) -> dict[str, Any]:
        """The keys that are set, checked against the fields of ``kind``."""
        own = {item.name for item in fields(kind)} if names is None else names
        self.known(table, own, section)
        found: dict[str, Any] = {}
        for item in fields(kind):
            if item.name not in own:
                continue
            hint = _hints(kind)[item.name]
            if item.name in table:
                found[item.name] = self.value(hint, table[item.name], self.place(section, item.name), item.name)
            if overrides and (override := self._override(section, item.name)):
                found[item.name] = self.from_environment(hint, *override)
            if item.name not in found and item.default is MISSING and item.default_factory is MISSING:
                raise BadValueError(f"{item.name} is missing", f"Add {item.name} = ...", place=self.place(section))
        return found

    def _override(self, section: str, key: str) -> tuple[str, str] | None:
        name = f"{section}.{key}".upper().replace(".", "_").replace("-", "_")
        return (f"SEAMLINE_{name}", self._overrides[name]) if name in self._overrides else None

    def unread_overrides(self, section: str, names: Collection[str]) -> None:
        """Refuse an environment variable that looks like a key of ``section`` and is none."""
        prefix = f"{section.upper()}_"
        wanted = {name.upper().replace("-", "_") for name in names}
        for name in self._overrides:
            key = name.removeprefix(prefix)
            if name.startswith(prefix) and key not in wanted:
                near = choices(key, wanted).replace("Did you mean '", f"Did you mean 'SEAMLINE_{prefix}")
                raise UnknownKeyError("nothing reads this variable", near, place=f"environment SEAMLINE_{name}")

    def override(self, name: str) -> tuple[str, str] | None:
        """The variable ``SEAMLINE_<name>`` and its text, if it is set."""
        return (f"SEAMLINE_{name}", self._overrides[name]) if name in self._overrides else None

    def from_environment(self, hint: Any, variable: str, text: str) -> Any:
        """A variable's text as a value: JSON where the key takes no text, a list between commas."""
        value: Any = text
        if get_origin(hint) is tuple and not text.lstrip().startswith("["):
            value = [part.strip() for part in text.split(",") if part.strip()]
        elif hint is not str and get_origin(hint) is not Literal:
            try:
                value = json.loads(text)
            except ValueError:
                value = text
        key = variable.rpartition("_")[2] if "_" not in variable else variable.lower()
        return self.value(hint, value, f"environment {variable}", key)

    def value(self, hint: Any, value: Any, place: str, key: str) -> Any:
        """``value`` as what ``hint`` says, bounded by the unit in the key's name."""
        origin = get_origin(hint)
        if origin is Literal:
            if value not in get_args(hint):
                raise BadValueError(
                    f"{value!r} is not one of the choices", choices(str(value), get_args(hint)), place=place
                )
            return value
        if origin is tuple:
            if not isinstance(value, list):
                raise WrongTypeError(f"{value!r} is not a list", "Write [..., ...].", place=place)
            inner = get_args(hint)[0]
            return tuple(self.value(inner, part, place, key) for part in cast("list[Any]", value))
        if isinstance(origin, type) and issubclass(origin, Mapping):
            if not isinstance(value, dict):
                raise WrongTypeError(f"{value!r} is not a table", "Write { name = value }.", place=place)
            inner = get_args(hint)[1]
            pairs = cast("dict[str, Any]", value).items()
            return MappingProxyType({name: self.value(inner, part, place, key) for name, part in pairs})
        if hint is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
            raise WrongTypeError(f"{value!r} is not {_KINDS[hint]}", f"It must be {_KINDS[hint]}.", place=place)
        if isinstance(value, int | float):
            _bounded(value, key, place)
        return value


def _bounded(value: float, key: str, place: str) -> None:
    most = 100 if key.endswith("_percent") else 1 if key.endswith("_ratio") else float("inf")
    if not 0 <= value <= most:
        span = "0 or more" if most == float("inf") else f"between 0 and {most}"
        raise BadValueError(f"{value!r} is out of range", f"It must be {span}.", place=place)
