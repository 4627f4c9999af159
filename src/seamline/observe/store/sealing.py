"""From SQLite to Parquet, with the choice of the traces that are worth keeping. Runs in the child process only.

Slow and failed traces all go to history, and a share of the others. The choice is by a hash of the id, so that it is
the same for what comes of a trace later. Where the file would be too large, the modules that fill it give way first.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import duckdb

from seamline.observe.records import Span, is_failure
from seamline.observe.store.keeping import fair_level
from seamline.observe.store.parquet import describe, log_line, span_line, write
from seamline.observe.store.pieces import unpack_log, unpack_spans
from seamline.observe.store.schema import open_reader

SPANS_MAX: Final = 50_000
"""Of one trace."""
COMPRESSED: Final = 3
"""How much smaller a row of Parquet is than a packed one of SQLite, roughly."""


class _Choice(NamedTuple):
    trace: bytes
    owner: int
    bytes: int
    matters: bool
    lot: int


def seal(connection: duckdb.DuckDBPyConnection, job: dict[str, Any]) -> dict[str, Any]:
    """Write what lies between the job's ids, and say what is in the file and what else is to go with it."""
    hot = open_reader(Path(job["folder"]))
    lines = Path(job["path"]).with_suffix(".lines")
    try:
        hot.execute("BEGIN")
        write_lines = _seal_spans if job["kind"] == "spans" else _seal_logs
        with lines.open("wb") as file:
            entries, thinned, late = write_lines(hot, job, file)
        answer: dict[str, Any] = {"entries": 0, "thinned": thinned, "late": late}
        if entries:
            write(connection, job["kind"], str(lines), job["path"])
            answer |= describe(connection, job)
        return answer
    finally:
        hot.close()
        lines.unlink(missing_ok=True)


def _seal_spans(hot: sqlite3.Connection, job: dict[str, Any], file: BinaryIO) -> tuple[int, int, list[int]]:
    bounds = (job["floor"], job["cut"])
    choices: list[_Choice] = []
    late: list[int] = []
    sql = "SELECT DISTINCT trace FROM pieces WHERE id >= ? AND id < ?"
    for (trace,) in hot.execute(sql, bounds).fetchall():
        matters, held, owner = False, 0, 0
        for id_, module, body in _pieces(hot, trace, job["floor"]):
            if id_ >= job["cut"]:
                late.append(id_)  # it goes with the rest of its trace, which is whole here
            owner = owner or module
            held += len(body)
            matters = matters or any(_matters(span, job["slow_ns"]) for span in unpack_spans(body))
        lot = zlib.crc32(trace)
        if matters or lot < job["keep"] * 2**32:
            choices.append(_Choice(trace, owner, held, matters, lot))
    kept, thinned = _fair(choices, job["bytes_max"] * COMPRESSED)
    entries = 0
    for choice in kept:
        for span in _whole(hot, choice.trace, job["floor"]):
            file.write(span_line(span) + b"\n")
            entries += 1
    return entries, thinned, late


def _pieces(hot: sqlite3.Connection, trace: bytes, floor: int) -> Iterator[tuple[int, int, bytes]]:
    yield from hot.execute(
        "SELECT id, module, body FROM pieces WHERE trace = ? AND id >= ? ORDER BY id", (trace, floor)
    ).fetchall()


def _whole(hot: sqlite3.Connection, trace: bytes, floor: int) -> Iterable[Span]:
    spans = [span for _, _, body in _pieces(hot, trace, floor) for span in unpack_spans(body)]
    return spans[:SPANS_MAX]


def _matters(span: Span, slow_ns: int) -> bool:
    return is_failure(span.status) or span.duration_ns >= slow_ns


def _fair(choices: list[_Choice], bytes_max: int) -> tuple[list[_Choice], int]:
    """All, or of each module no more than its share; of its traces those first that matter. How many were left out."""
    totals: dict[int, int] = {}
    for choice in choices:
        totals[choice.owner] = totals.get(choice.owner, 0) + choice.bytes
    if sum(totals.values()) <= bytes_max:
        return choices, 0
    level = fair_level(totals, bytes_max)
    kept: list[_Choice] = []
    taken: dict[int, int] = {}
    for choice in sorted(choices, key=lambda each: (not each.matters, each.lot)):
        held = taken.get(choice.owner, 0) + choice.bytes
        if held <= level:
            taken[choice.owner] = held
            kept.append(choice)
    return kept, len(choices) - len(kept)


def _seal_logs(hot: sqlite3.Connection, job: dict[str, Any], file: BinaryIO) -> tuple[int, int, list[int]]:
    bounds = (job["floor"], job["cut"])
    totals = dict(
        hot.execute("SELECT module, sum(length(body)) FROM logs WHERE id >= ? AND id < ? GROUP BY module", bounds)
    )
    room = job["bytes_max"] * COMPRESSED
    level = fair_level(totals, room) if sum(totals.values()) > room else None
    taken: dict[int, int] = {}
    entries = thinned = 0
    # Of a module that says too much, what is severe goes first.
    order = "id" if level is None else "severity DESC, id"
    sql = f"SELECT module, body FROM logs WHERE id >= ? AND id < ? ORDER BY {order}"  # noqa: S608
    for module, body in hot.execute(sql, bounds):
        taken[module] = taken.get(module, 0) + len(body)
        if level is not None and taken[module] > level:
            thinned += 1
            continue
        file.write(log_line(unpack_log(body)) + b"\n")
        entries += 1
    return entries, thinned, []
