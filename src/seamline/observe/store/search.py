"""Finding traces and logs: first in SQLite, then in the Parquet files of the history."""

from __future__ import annotations

import importlib.util
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from seamline.observe.errors import BadQueryError, HistoryError
from seamline.observe.records import OK, Attribute, Log, Span, is_failure
from seamline.observe.store.child import Child, too_long
from seamline.observe.store.pieces import hashed, match, shown, unpack_log, unpack_spans, words_of
from seamline.observe.store.query import ROWS_MAX, LogQuery, Page, TraceQuery, TraceSummary
from seamline.observe.store.rollups import meta
from seamline.observe.store.schema import HISTORY, HOUR_MS, ID_BITS, id_at, sealed_key, words_table

FOREVER: Final = (1 << 63) - 1
SPANS_MAX: Final = 10_000
PIECES_MAX: Final = 2_000
FILES_AT_ONCE: Final = 8
_BITS_MAX: Final = 64
_SPAN: Final = msgspec.msgpack.Decoder(Span)
_LOG: Final = msgspec.msgpack.Decoder(Log)


@dataclass(frozen=True, slots=True)
class Look:
    """A connection in the middle of a read, and until when (``time.monotonic``) it may last."""

    connection: sqlite3.Connection
    folder: Path
    child: Child
    until: float
    timeout_s: float

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        return self.connection.execute(sql, values).fetchall()

    def check(self) -> None:
        if time.monotonic() > self.until:
            raise too_long(self.timeout_s)

    def ask_history(self, job: dict[str, Any]) -> Any:
        return self.child.ask(job, max(self.until - time.monotonic(), 0.001))

    def history(self, kind: str, since_ns: int, until_ns: int, newest: int) -> list[tuple[str, int]]:
        """The files that may have something of that time and end no later than ``newest``, with their ends, falling."""
        where = "kind = ? AND until >= ? AND since <= ? AND until <= ?"
        sql = f"SELECT name, until FROM files WHERE {where} ORDER BY until DESC, name"  # noqa: S608 - our own words
        found = self.rows(sql, (kind, since_ns or -FOREVER, until_ns or FOREVER, newest))
        return [(str(self.folder / HISTORY / name), until) for name, until in found]


def _no_duckdb() -> str:
    if importlib.util.find_spec("duckdb") is not None:
        return ""
    return "There is more in the history, which DuckDB reads: pip install 'seamline[history]'."


def trace(look: Look, id_: bytes) -> list[Span]:
    spans = _hot_trace(look, id_, meta(look.connection, "floor_spans"))
    files = look.rows("SELECT file FROM sealed WHERE trace = ?", (sealed_key(id_),))
    if files and len(id_) == 16:
        paths = [str(look.folder / HISTORY / name) for (name,) in files]
        if _no_duckdb():
            if spans:
                return spans
            raise HistoryError("the trace is in the history", "Install DuckDB: pip install 'seamline[history]'")
        job = {"do": "spans", "files": paths, "traces": [id_.hex()], "limit": SPANS_MAX}
        spans += [_SPAN.decode(each) for each in look.ask_history(job)]
    return sorted(spans[:SPANS_MAX], key=lambda each: each.start_ns)


def _hot_trace(look: Look, id_: bytes, floor: int) -> list[Span]:
    sql = "SELECT body FROM pieces WHERE trace = ? AND id >= ? ORDER BY id LIMIT ?"
    spans: list[Span] = []
    for (body,) in look.rows(sql, (id_, floor, PIECES_MAX)):
        spans += unpack_spans(body)
        if len(spans) >= SPANS_MAX:
            break
    return spans


def traces(look: Look, q: TraceQuery) -> Page[TraceSummary]:
    """Newest first. What is hot comes before what is sealed, so that a page is of the one, then of the other."""
    limit = _limit(q.limit)
    where, _, rest = q.cursor.partition(":")
    found: list[TraceSummary] = []
    if where in {"", "hot"}:
        last = _number(rest, q.cursor) if where else FOREVER
        for id_, summary in _hot_traces(look, q, last):
            found.append(summary)
            if len(found) == limit:
                return Page(found, f"hot:{id_}")
    elif where != "past":
        raise _bad_cursor(q.cursor)
    return _past(look, "spans", q, found, limit, rest if where == "past" else "")


def _hot_traces(look: Look, q: TraceQuery, last: int) -> Iterator[tuple[int, TraceSummary]]:
    floor = meta(look.connection, "floor_spans")
    fits = Fit(q)
    wanted = _question(q)
    if q.until_ns:
        last = min(last, id_at(q.until_ns + 1_000_000))
    for id_ in _ids(look, "spans", wanted, max(floor, id_at(q.since_ns)), last):
        look.check()
        row = look.rows("SELECT trace, body FROM pieces WHERE id = ?", (id_,))
        if not row or not any(map(fits, unpack_spans(row[0][1]))):
            continue
        spans: list[Span] = []
        newest = id_
        sql = "SELECT id, body FROM pieces WHERE trace = ? AND id >= ? ORDER BY id LIMIT ?"
        for piece, body in look.rows(sql, (row[0][0], floor, PIECES_MAX)):
            more = unpack_spans(body)
            spans += more
            if piece > newest and any(map(fits, more)):
                newest = piece
        if newest == id_:  # otherwise it was found by its newer piece before
            yield id_, summary_of(spans)


def _ids(look: Look, kind: str, question: str, least: int, last: int) -> Iterator[int]:
    """Ids of rows that may fit, falling."""
    table = "pieces" if kind == "spans" else "logs"
    if not question:
        sql = f"SELECT id FROM {table} WHERE id < ? AND id >= ? ORDER BY id DESC"  # noqa: S608 - our own names
        for (id_,) in look.connection.execute(sql, (last, least)):
            yield id_
        return
    for (hour,) in look.rows("SELECT hour FROM words WHERE kind = ? ORDER BY hour DESC", (kind,)):
        begin = (hour * HOUR_MS) << ID_BITS
        if begin >= last or (((hour + 1) * HOUR_MS) << ID_BITS) <= least:
            continue
        name = words_table(kind, hour)
        sql = (
            f"SELECT rowid FROM {name} WHERE {name} MATCH ? AND rowid < ? AND rowid >= ? "  # noqa: S608
            "ORDER BY rowid DESC"
        )
        for (id_,) in look.connection.execute(sql, (question, last, least)):
            yield id_


def _question(q: TraceQuery) -> str:
    """What the full-text tables are asked, which says no to nothing that fits."""
    terms: list[str] = []
    any_of: list[list[str]] = []
    if q.module:
        terms.append(hashed(":m", q.module))
    if q.name:
        terms.append(hashed(":n", q.name))
    if q.status == "failed":
        terms.append(hashed(":f", ""))
    elif q.status and q.status != OK:
        terms.append(hashed(":s", q.status))
    if q.roots_only:
        terms.append(hashed(":r", ""))
    if q.slower_than_ms > 0:
        least = int(q.slower_than_ms * 1e6).bit_length()
        any_of.append([hashed(":d", bits) for bits in range(least, _BITS_MAX + 1)])
    terms += [hashed(key, next(iter(shown(value)))) for key, value in q.attributes.items()]
    return match(terms, words_of(q.text), any_of)


class Fit:
    """Whether one span fits all of a question but its text, which the tables have answered."""

    def __init__(self, q: TraceQuery) -> None:
        self._q = q
        self._slower_ns = int(q.slower_than_ms * 1e6)
        self._since_ns, self._until_ns = _bounds(q)

    def __call__(self, span: Span) -> bool:
        q = self._q
        return (
            (not q.module or span.module == q.module)
            and (not q.name or span.name == q.name)
            and (not q.status or span.status == q.status or (q.status == "failed" and is_failure(span.status)))
            and (span.duration_ns >= self._slower_ns or not self._slower_ns)
            and (not q.roots_only or not any(span.parent_id))
            and self._since_ns <= span.start_ns < self._until_ns
            and all(_has(span, key, value) for key, value in q.attributes.items())
        )


def _has(span: Span, key: str, value: str) -> bool:
    return _reads(span.attributes, key, value) or _reads(span.resource, key, value)


def _reads(attributes: Mapping[str, Attribute], key: str, value: str) -> bool:
    return key in attributes and next(iter(shown(value))) in shown(attributes[key])


def summary_of(spans: Sequence[Span]) -> TraceSummary:
    """A trace at a glance, from all of its spans."""
    ordered = sorted(spans, key=lambda each: each.start_ns)
    root = next((span for span in ordered if not any(span.parent_id)), None)
    head = root or ordered[0]
    begun = ordered[0].start_ns
    return TraceSummary(
        trace_id=head.trace_id.hex(),
        name=head.name,
        module=head.module,
        started_ns=begun,
        duration_ns=max(span.start_ns + max(span.duration_ns, 0) for span in ordered) - begun,
        spans=len(ordered),
        errors=sum(is_failure(span.status) for span in ordered),
        modules=list(dict.fromkeys(span.module for span in ordered)),
        status=head.status,
        rooted=root is not None,
    )


def _past(look: Look, kind: str, q: Any, found: list[Any], limit: int, cursor: str) -> Page[Any]:
    """The rest of a page from the history: some files at a time, the newest first, until it is full or the time over.

    A cursor is the end of the first file of those that are looked at, and how far they were.
    """
    newest, _, within = cursor.partition(":")
    files = look.history(kind, q.since_ns, q.until_ns, _number(newest, q.cursor) if newest else FOREVER)
    if files and (note := _no_duckdb()):
        return Page(found, notes=(note,))
    ask = _past_traces if kind == "spans" else _past_logs
    for begin in range(0, len(files), FILES_AT_ONCE):
        some = [name for name, _ in files[begin : begin + FILES_AT_ONCE]]
        here = f"past:{files[begin][1]}"
        began = time.monotonic()
        try:
            more, further = ask(look, q, some, limit - len(found), within)
        except HistoryError as error:  # what was found is not withheld for it
            return Page(found, notes=(f"The history cannot be read: {error.fact}.",))
        found += more
        within = ""
        if further:
            return Page(found, f"{here}:{further}")
        left = begin + FILES_AT_ONCE < len(files)
        if left and (len(found) >= limit or (found and 2 * (time.monotonic() - began) > look.until - time.monotonic())):
            return Page(found, f"past:{files[begin + FILES_AT_ONCE][1]}:")
    return Page(found)


def _past_traces(
    look: Look, q: TraceQuery, files: list[str], limit: int, within: str
) -> tuple[list[TraceSummary], str]:
    at, _, last = within.partition(":")
    job: dict[str, Any] = {
        "do": "traces", "files": files, "limit": limit + 1, "module": q.module, "name": q.name,
        "status": q.status, "slower_than_ns": int(q.slower_than_ms * 1e6), "roots_only": q.roots_only,
        "attributes": dict(q.attributes), "words": words_of(q.text), "since_ns": q.since_ns, "until_ns": q.until_ns,
        "cursor": [_number(at, q.cursor), last] if within else None,
    }  # fmt: skip
    rows = look.ask_history(job)
    ids = [each for _, each in rows[:limit]]
    if not ids:
        return [], ""
    spans: dict[str, list[Span]] = {}
    for each in look.ask_history({"do": "spans", "files": files, "traces": ids, "limit": 4 * SPANS_MAX}):
        span = _SPAN.decode(each)
        spans.setdefault(span.trace_id.hex().upper(), []).append(span)
    found = [summary_of(spans[each]) for each in ids if each in spans]
    return found, f"{rows[limit - 1][0]}:{rows[limit - 1][1]}" if len(rows) > limit else ""


def logs(look: Look, q: LogQuery) -> Page[Log]:
    """Newest first, by the same rule as :func:`traces`."""
    limit = _limit(q.limit)
    where, _, rest = q.cursor.partition(":")
    try:
        trace_id = bytes.fromhex(q.trace_id)
    except ValueError:
        raise BadQueryError(f"{q.trace_id!r} is no trace id", "32 hexadecimal digits") from None
    found: list[Log] = []
    if where in {"", "hot"}:
        last = _number(rest, q.cursor) if where else FOREVER
        for id_, line in _hot_logs(look, q, trace_id, last):
            found.append(line)
            if len(found) == limit:
                return Page(found, f"hot:{id_}")
    elif where != "past":
        raise _bad_cursor(q.cursor)
    return _past(look, "logs", q, found, limit, rest if where == "past" else "")


def _hot_logs(look: Look, q: LogQuery, trace_id: bytes, last: int) -> Iterator[tuple[int, Log]]:
    least = max(meta(look.connection, "floor_logs"), id_at(q.since_ns))
    since_ns, until_ns = _bounds(q)
    if q.until_ns:
        last = min(last, id_at(q.until_ns + 1_000_000))
    words = words_of(q.text)
    terms = [hashed(":m", q.module)] if q.module else []
    bands = range(max(q.severity - 1, 0) // 4, 6)
    any_of = [[hashed(":l", band) for band in bands]] if q.severity > 1 else []
    if trace_id and not words:
        sql = "SELECT id FROM logs WHERE trace = ? AND id < ? AND id >= ? ORDER BY id DESC"
        ids = (id_ for (id_,) in look.connection.execute(sql, (trace_id, last, least)))
    else:
        ids = _ids(look, "logs", match(terms, words, any_of), least, last)
    for id_ in ids:
        look.check()
        row = look.rows("SELECT body FROM logs WHERE id = ?", (id_,))
        if not row:
            continue
        line = unpack_log(row[0][0])
        if (
            line.severity >= q.severity
            and since_ns <= line.at_ns < until_ns
            and (not q.module or q.module in {line.module, line.workload})
            and (not trace_id or line.trace_id == trace_id)
        ):
            yield id_, line


def _past_logs(look: Look, q: LogQuery, files: list[str], limit: int, within: str) -> tuple[list[Log], str]:
    at, _, skipped = within.partition(":")
    until_ns = _number(at, q.cursor) + 1 if within else q.until_ns
    skip = _number(skipped, q.cursor) if within else 0
    job: dict[str, Any] = {
        "do": "logs", "files": files, "limit": limit + 1, "skip": skip, "module": q.module,
        "severity": q.severity, "trace": q.trace_id, "words": words_of(q.text), "since_ns": q.since_ns,
        "until_ns": until_ns,
    }  # fmt: skip
    lines = [_LOG.decode(each) for each in look.ask_history(job)]
    if len(lines) <= limit:
        return lines, ""
    lines = lines[:limit]
    end = lines[-1].at_ns
    alike = sum(line.at_ns == end for line in lines)
    # Where a page ends among lines of the same nanosecond, the next begins behind those that were shown.
    return lines, f"{end}:{alike + (skip if within and end == until_ns - 1 else 0)}"


def _bounds(q: TraceQuery | LogQuery) -> tuple[int, int]:
    """Also what claims to be of before the epoch, or the last moment there is, is within an end that is open."""
    return q.since_ns or -FOREVER - 1, q.until_ns or FOREVER + 1


def _limit(limit: int) -> int:
    return min(max(limit, 1), ROWS_MAX)


def _number(text: str, cursor: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _bad_cursor(cursor) from None


def _bad_cursor(cursor: str) -> BadQueryError:
    return BadQueryError(f"{cursor!r} is no cursor", "Give the `next` of a page of the same question")
