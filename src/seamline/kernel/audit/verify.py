"""What was done to an audit: each line that was changed, removed, put in, moved or cut off, by file and number.

Needs the folder alone. What it says of lines behind the newest checkpoint rests on the chain, which whoever can write
the files can make anew; before it, on signatures. Who could write the folder *and* had the key could make all of it
anew: against that stand heads that were kept elsewhere (``kept``) and those that the running supervisor holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

from seamline.kernel.audit import chain
from seamline.kernel.audit.checkpoints import CHECKPOINTS
from seamline.kernel.audit.errors import AuditError
from seamline.kernel.audit.log import Written

_FILE = re.compile(r"(?P<log>[^.].*)\.jsonl(?:\.(?P<number>[0-9]+))?")
_FINDINGS_MAX = 1000
_LOOKS_MAX = 5
_ALL = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong. ``crash``: a line that a dying process left half written, which is nobody's doing."""

    file: str
    line: int
    fact: str
    crash: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.fact}"


@dataclass(slots=True)
class LogReport:
    """What was found out about one log."""

    name: str
    lines: int = 0
    head: Written | None = None
    signed: int = 0
    """The number of the last line that a signed checkpoint covers."""
    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def damaged(self) -> bool:
        return any(not each.crash for each in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "log": self.name,
            "lines": self.lines,
            "last": self.head.number if self.head else 0,
            "head": self.head.head if self.head else "",
            "signed_to": self.signed,
            "damaged": self.damaged,
            "findings": [
                {"file": each.file, "line": each.line, "fact": each.fact, "crash": each.crash} for each in self.findings
            ],
        }


def logs(folder: Path) -> dict[str, list[Path]]:
    """Every log in the folder with its files, the oldest first."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if match := _FILE.fullmatch(path.name):
            found.setdefault(match["log"], []).append((int(match["number"] or 0), path))
    return {name: [path for _, path in sorted(files, reverse=True)] for name, files in sorted(found.items())}


class Signed(NamedTuple):
    """The checkpoints of a folder: log to line number to hash."""

    heads: Mapping[str, Mapping[int, str]]
    report: LogReport

    def newest(self) -> dict[str, Written]:
        return {log: Written(log, *max(heads.items())) for log, heads in self.heads.items()}


def checkpoints(folder: Path, fingerprint: str = "", *, files_max: int = _ALL) -> Signed:
    """Read and check the folder's checkpoints. ``fingerprint`` is the key's, where it was kept elsewhere.

    The newest of every log stands in the last two files.

    Raises AuditError.
    """
    from seamline.kernel.audit import key  # loads the cryptography library

    public = key.load_public(folder)
    if fingerprint and (public is None or key.fingerprint(public) != fingerprint.lower()):
        raise AuditError(
            f"the key in {str(folder)!r} is {key.fingerprint(public) if public else 'missing'!r}, not {fingerprint!r}",
            "The checkpoints were signed by somebody else, or the key was replaced.",
        )
    walk = _Walk(CHECKPOINTS, logs(folder).get(CHECKPOINTS, []), {}, files_max)
    heads: dict[str, dict[int, str]] = {}
    for place, line in walk.lines():
        if line.content.get("action") != "checkpoint":
            continue
        found, at, signature = _checkpoint(line.content)
        if public is None or not key.holds(public, signature, found, at):
            walk.note(*place, "a checkpoint whose signature does not hold")
            continue
        known = heads.setdefault(found.log, {}).setdefault(found.number, found.head)
        if known != found.head:
            walk.note(*place, f"another checkpoint says otherwise about line {found.number} of {found.log!r}")
    return Signed(heads, walk.report)


def verify(
    folder: Path,
    *,
    fingerprint: str = "",
    kept: Iterable[Written] = (),
    held: Iterable[Written] = (),
    files_max: int = _ALL,
) -> list[LogReport]:
    """One report for every log.

    Args:
        fingerprint: of the audit's key, where it was kept elsewhere.
        kept: heads that were kept elsewhere (``seamline audit heads``).
        held: the newest checkpoints that the running supervisor holds in memory.
        files_max: look at so many of the newest files of each log, for an answer that comes soon.
    """
    wanted = (folder, fingerprint, (*kept, *held), files_max)
    for _ in range(_LOOKS_MAX - 1):
        before = _files_of(folder)
        reports = _verify(*wanted)
        # A log that was rotated while it was read looks as if somebody had moved lines.
        if _files_of(folder) == before or not any(each.damaged for each in reports):
            return reports
    return _verify(*wanted)


def _files_of(folder: Path) -> list[tuple[Path, int]]:
    try:
        return [(path, path.stat().st_ino) for paths in logs(folder).values() for path in paths]
    except FileNotFoundError:
        return []


def _verify(folder: Path, fingerprint: str, known: Iterable[Written], files_max: int) -> list[LogReport]:
    signed = checkpoints(folder, fingerprint, files_max=max(files_max, 2))
    files = logs(folder)
    expected: dict[str, dict[int, str]] = {log: dict(heads) for log, heads in signed.heads.items()}
    for each in known:
        if expected.setdefault(each.log, {}).setdefault(each.number, each.head) != each.head:
            fact = f"a head that was kept elsewhere says otherwise about line {each.number} of {each.log!r}"
            signed.report.findings.append(Finding(f"{CHECKPOINTS}.jsonl", 0, fact))
    reports: list[LogReport] = []
    for name in sorted({*files, *expected} - {CHECKPOINTS}):
        walk = _Walk(name, files.get(name, []), expected.get(name, {}), files_max)
        for _ in walk.lines():
            pass
        walk.report.signed = max(signed.heads.get(name, {0: ""}))
        reports.append(walk.report)
    if CHECKPOINTS in files or signed.report.findings:
        reports.append(signed.report)
    return reports


def _checkpoint(content: Mapping[str, Any]) -> tuple[Written, str, str]:
    found = Written(str(content.get("resource")), cast("int", content.get("lines")), str(content.get("head")))
    return found, str(content.get("at")), str(content.get("signature"))


class _Walk:
    """From the oldest line of a log to the newest."""

    def __init__(self, name: str, files: list[Path], expected: Mapping[int, str], files_max: int) -> None:
        self.report = LogReport(name)
        self._files = files[-files_max:]
        self._whole = len(files) <= files_max
        self._expected = expected
        self._number = 0  # of the last line in order
        self._head = ""
        self._place = ("", 0)  # of that line
        self._unread: list[tuple[str, int, bytes, bool]] = []
        self._begin: tuple[str, int, int] | None = None
        self._dropped_to = 0

    def note(self, file: str, line: int, fact: str, *, crash: bool = False) -> None:
        if len(self.report.findings) < _FINDINGS_MAX:
            self.report.findings.append(Finding(file, line, fact, crash))

    def lines(self) -> Iterator[tuple[tuple[str, int], chain.Line]]:
        """Every line that can be read, in the order of the files; what is wrong goes to the report."""
        for path in self._files:
            with path.open("rb") as file:
                for count, raw in enumerate(file, 1):
                    whole = raw.endswith(b"\n")
                    line = chain.read(raw[:-1]) if whole else None
                    if line is None:
                        self._unread.append((path.name, count, raw.removesuffix(b"\n"), whole))
                        continue
                    self._explain(line)
                    self._check((path.name, count), line)
                    self.report.lines += 1
                    yield (path.name, count), line
        self._finish()

    def _explain(self, line: chain.Line) -> None:
        """What could not be read is a crash's doing if the writer itself said so when it went on."""
        if not self._unread:
            return
        named: Any = line.content.get("torn") if line.content.get("action") == "recover" and line.true else ()
        for file, count, raw, _ in self._unread:
            torn = isinstance(named, list) and chain.digest(raw) in named and not _is_json(raw)
            self._note_unread(file, count, torn=torn)
        self._unread.clear()

    def _note_unread(self, file: str, count: int, *, torn: bool) -> None:
        fact = "half written when its process died" if torn else "not a line of this log: changed or put in"
        self.note(file, count, fact, crash=torn)

    def _check(self, place: tuple[str, int], line: chain.Line) -> None:
        if not line.true:
            self.note(*place, "changed: its bytes do not have its hash")
        if self._begin is None:
            self._first(place, line)
        elif line.number > self._number + 1:
            self.note(*place, f"{_removed(self._number + 1, line.number - 1)} (it is number {line.number})")
        elif line.number <= self._number:
            self.note(*place, f"out of place: it is number {line.number} and stands behind number {self._number}")
            return
        elif line.prev != self._head:
            self.note(*self._place, f"replaced: number {line.number}, which follows it, holds another hash of it")
        known = self._expected.get(line.number)
        if known is not None and known != line.hash:
            self.note(*place, "not the line that a checkpoint holds the hash of: it or lines before it were rewritten")
        if line.content.get("action") == "drop" and line.content.get("kind") == "audit":
            dropped: Any = line.content.get("dropped_to")
            self._dropped_to = max(self._dropped_to, dropped if type(dropped) is int else 0)
        self._number, self._head, self._place = line.number, line.hash, place

    def _first(self, place: tuple[str, int], line: chain.Line) -> None:
        self._begin = (*place, line.number)
        if line.number == 1 and line.prev != chain.first(self.report.name):
            self.note(*place, f"the first line of another log than {self.report.name!r}, or changed")

    def _finish(self) -> None:
        report = self.report
        for index, (file, count, raw, whole) in enumerate(self._unread, 1):
            last = index == len(self._unread) and not whole and file == self._files[-1].name
            self._note_unread(file, count, torn=last and not _is_json(raw))
        if self._begin is not None:
            file, count, number = self._begin
            if self._whole and number - 1 > self._dropped_to:
                self.note(file, count, _removed(self._dropped_to + 1, number - 1))
            report.head = Written(report.name, self._number, self._head)
        newest = max(self._expected, default=0)
        if newest > self._number:
            file, count = self._place if self._begin else (f"{report.name}.jsonl", 0)
            self.note(file, count, f"cut off: lines {self._number + 1} to {newest} once stood behind it")


def _removed(first: int, last: int) -> str:
    return f"line {first} was removed before it" if first == last else f"lines {first} to {last} were removed before it"


def _is_json(raw: bytes) -> bool:
    return raw.rstrip().endswith(b"}") and chain.read(raw) is not None
