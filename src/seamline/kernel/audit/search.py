"""Lines of all logs of a folder, in the order of time."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from seamline.kernel.audit.checkpoints import CHECKPOINTS
from seamline.kernel.audit.verify import logs

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What to look for; an empty member asks nothing. Times are ISO 8601 in UTC, as in the lines."""

    since: str = ""
    until: str = ""
    kind: str = ""
    principal: str = ""
    action: str = ""
    decision: str = ""
    text: str = ""
    """Stands anywhere in the line; big and small letters are one."""

    def matches(self, entry: Entry) -> bool:
        time = str(entry.get("time", ""))
        if (self.since and time < self.since) or (self.until and time >= self.until):
            return False
        if any(
            wanted and not _like(str(entry.get(name, "")), wanted)
            for name, wanted in (
                ("kind", self.kind),
                ("principal", self.principal),
                ("action", self.action),
                ("decision", self.decision),
            )
        ):
            return False
        return not self.text or self.text.lower() in json.dumps(entry, ensure_ascii=False).lower()


def _like(value: str, wanted: str) -> bool:
    """Equal, or begins with what stands before a final ``*``."""
    return value.startswith(wanted[:-1]) if wanted.endswith("*") else value == wanted


def entries(folder: Path, query: Query) -> Iterator[Entry]:
    """What matches, the oldest first; each with ``log``, the name of its log. Checkpoints are no entries."""
    found = [_of(name, paths) for name, paths in logs(folder).items() if name != CHECKPOINTS]
    for entry in heapq.merge(*found, key=lambda each: str(each.get("time", ""))):
        if query.matches(entry):
            yield entry


class Place(NamedTuple):
    """Of a line among those of all logs, in the order of time."""

    time: str
    log: str
    number: int


def place_of(entry: Entry) -> Place:
    number: Any = entry.get("number")
    return Place(str(entry.get("time", "")), str(entry.get("log", "")), number if type(number) is int else 0)


def latest(folder: Path, query: Query, limit: int, before: Place | None = None) -> list[Entry]:
    """The newest ``limit`` that match, the newest first; of those before a place, if one is given.

    Files are read from the newest back, and none that is older than what is asked for.
    """
    found: list[Entry] = []
    for name, paths in logs(folder).items():
        if name != CHECKPOINTS:
            found += _latest_of(name, paths, query, limit, before)
    return sorted(found, key=place_of, reverse=True)[:limit]


def _latest_of(name: str, paths: list[Path], query: Query, limit: int, before: Place | None) -> list[Entry]:
    found: list[Entry] = []
    for path in reversed(paths):
        whole = list(_of(name, [path]))
        matching = (each for each in whole if (before is None or place_of(each) < before) and query.matches(each))
        found = [*matching, *found]
        if len(found) >= limit or (query.since and whole and str(whole[0].get("time", "")) < query.since):
            break
    return found[-limit:]


def _of(name: str, paths: list[Path]) -> Iterator[Entry]:
    for path in paths:
        try:
            with path.open("rb") as file:
                yield from parse(name, file)
        except FileNotFoundError:  # rotated away meanwhile
            continue


def parse(name: str, lines: Any) -> Iterator[Entry]:
    for raw in lines:
        try:
            entry: Any = json.loads(raw)
        except ValueError:
            continue  # `verify` is who speaks of damage
        if isinstance(entry, dict):
            yield {"log": name, **cast("Entry", entry)}


class Follower:
    """What is written from now on, looked for at every :meth:`more`."""

    def __init__(self, folder: Path, query: Query) -> None:
        self._folder = folder
        self._query = query
        self._places: dict[str, tuple[int, int]] = {}
        for name, paths in logs(folder).items():
            stat = paths[-1].stat()
            self._places[name] = stat.st_ino, stat.st_size

    def more(self) -> list[Entry]:
        found: list[Entry] = []
        for name, paths in logs(self._folder).items():
            if name != CHECKPOINTS:
                found += self._more_of(name, paths)
        found.sort(key=lambda each: str(each.get("time", "")))
        return [each for each in found if self._query.matches(each)]

    def _more_of(self, name: str, paths: list[Path]) -> list[Entry]:
        inode, offset = self._places.get(name, (0, 0))
        found: list[Entry] = []
        known = next((index for index, path in enumerate(paths) if path.stat().st_ino == inode), -1)
        for path in paths[max(known, 0) :]:
            with path.open("rb") as file:
                if path.stat().st_ino == inode:
                    file.seek(offset)
                raw = file.read()
                whole = raw[: raw.rfind(b"\n") + 1]
                found += parse(name, whole.splitlines())
                self._places[name] = path.stat().st_ino, file.tell() - len(raw) + len(whole)
        return found
