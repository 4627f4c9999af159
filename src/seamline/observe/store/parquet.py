"""The Parquet files of the history: their columns, and questions to them. Runs in the child process only.

Every column says in plain types and JSON what a span or log holds, for any tool that reads Parquet. What JSON cannot
say exactly (bytes, numbers that are none) stands in ``exact`` as MessagePack of the whole.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, cast

import duckdb
import msgspec

from seamline.observe.records import Attribute, Log, Span, SpanEvent, SpanLink

CONFIG: Final[dict[str, str | bool | int | float | list[str]]] = {
    "memory_limit": "256MB", "threads": 1, "temp_directory": "", "autoinstall_known_extensions": False,
    "autoload_known_extensions": False, "preserve_insertion_order": False,
}  # fmt: skip
ROW_GROUP: Final = 20_000
OBJECT_BYTES_MAX: Final = 64 * 1024 * 1024

SPAN_COLUMNS: Final = {
    "trace": "BLOB", "span": "BLOB", "parent": "BLOB", "name": "VARCHAR", "kind": "VARCHAR", "module": "VARCHAR",
    "peer": "VARCHAR", "start_ns": "BIGINT", "duration_ns": "BIGINT", "status": "VARCHAR", "message": "VARCHAR",
    "attributes": "VARCHAR", "events": "VARCHAR", "links": "VARCHAR", "workload": "VARCHAR", "replica": "BIGINT",
    "resource": "VARCHAR", "scope": "VARCHAR", "trace_state": "VARCHAR", "exact": "BLOB",
}  # fmt: skip
LOG_COLUMNS: Final = {
    "at_ns": "BIGINT", "severity": "BIGINT", "module": "VARCHAR", "message": "VARCHAR", "logger": "VARCHAR",
    "workload": "VARCHAR", "replica": "BIGINT", "trace": "BLOB", "span": "BLOB", "exception": "VARCHAR",
    "attributes": "VARCHAR", "resource": "VARCHAR", "exact": "BLOB",
}  # fmt: skip
COLUMNS: Final = {"spans": SPAN_COLUMNS, "logs": LOG_COLUMNS}
ORDER: Final = {"spans": "trace, start_ns", "logs": "at_ns"}

_INT64: Final = 1 << 63
_JSON: Final = msgspec.json.Encoder()
_PACK: Final = msgspec.msgpack.Encoder()
_ATTRIBUTES: Final = msgspec.json.Decoder(dict[str, Attribute])


class _Event(msgspec.Struct):
    at_ns: int
    name: str
    attributes: dict[str, Attribute] = {}


class _Link(msgspec.Struct):
    trace: str
    span: str
    attributes: dict[str, Attribute] = {}
    trace_state: str = ""


_EVENTS: Final = msgspec.json.Decoder(list[_Event])
_LINKS: Final = msgspec.json.Decoder(list[_Link])
_SPAN: Final = msgspec.msgpack.Decoder(Span)
_LOG: Final = msgspec.msgpack.Decoder(Log)


def span_line(span: Span) -> bytes:
    """A span as a line of JSON, with the names of the columns; bytes are hexadecimal."""
    events = [_Event(each.at_ns, each.name, each.attributes) for each in span.events]
    links = [_Link(each.trace_id.hex(), each.span_id.hex(), each.attributes, each.trace_state) for each in span.links]
    row = {
        "trace": span.trace_id.hex(), "span": span.span_id.hex(), "parent": span.parent_id.hex(), "name": span.name,
        "kind": span.kind, "module": span.module, "peer": span.peer, "start_ns": _int64(span.start_ns),
        "duration_ns": _int64(span.duration_ns), "status": span.status, "message": span.message,
        "attributes": _text(span.attributes), "events": _text(events), "links": _text(links),
        "workload": span.workload, "replica": _int64(span.replica), "resource": _text(span.resource),
        "scope": span.scope, "trace_state": span.trace_state, "exact": "",
    }  # fmt: skip
    if _span_of([_plain(value, SPAN_COLUMNS[name]) for name, value in row.items()]) != span:
        row["exact"] = _PACK.encode(span).hex()
    return _JSON.encode(row)


def log_line(line: Log) -> bytes:
    row = {
        "at_ns": _int64(line.at_ns), "severity": _int64(line.severity), "module": line.module,
        "message": line.message, "logger": line.logger, "workload": line.workload, "replica": _int64(line.replica),
        "trace": line.trace_id.hex(), "span": line.span_id.hex(), "exception": line.exception,
        "attributes": _text(line.attributes), "resource": _text(line.resource), "exact": "",
    }  # fmt: skip
    if _log_of([_plain(value, LOG_COLUMNS[name]) for name, value in row.items()]) != line:
        row["exact"] = _PACK.encode(line).hex()
    return _JSON.encode(row)


def _plain(value: Any, kind: str) -> Any:
    return bytes.fromhex(value) if kind == "BLOB" else value


def _text(value: Any) -> str:
    return _JSON.encode(value).decode() if value else ""


def _int64(value: int) -> int:
    return min(max(value, -_INT64), _INT64 - 1)


def _span_of(row: Sequence[Any]) -> Span:
    (trace, span, parent, name, kind, module, peer, start_ns, duration_ns, status, message, attributes, events, links,
     workload, replica, resource, scope, trace_state, exact) = row  # fmt: skip
    if exact:
        return _SPAN.decode(exact)
    return Span(
        trace, span, parent, name, kind, module, peer, start_ns, duration_ns, status, message,
        _ATTRIBUTES.decode(attributes) if attributes else {},
        [SpanEvent(each.at_ns, each.name, each.attributes) for each in _EVENTS.decode(events)] if events else [],
        [
            SpanLink(bytes.fromhex(each.trace), bytes.fromhex(each.span), each.attributes, each.trace_state)
            for each in _LINKS.decode(links)
        ] if links else [],
        workload, replica, _ATTRIBUTES.decode(resource) if resource else {}, scope, trace_state,
    )  # fmt: skip


def _log_of(row: Sequence[Any]) -> Log:
    (at_ns, severity, module, message, logger, workload, replica, trace, span, exception, attributes, resource,
     exact) = row  # fmt: skip
    if exact:
        return _LOG.decode(exact)
    return Log(
        at_ns, severity, module, message, logger, workload, replica, trace, span, exception,
        _ATTRIBUTES.decode(attributes) if attributes else {}, _ATTRIBUTES.decode(resource) if resource else {},
    )  # fmt: skip


def write(connection: duckdb.DuckDBPyConnection, kind: str, source: str, path: str) -> None:
    """A file of lines becomes a Parquet file, sorted."""
    columns = COLUMNS[kind]
    read = ", ".join(f"{name}: '{'VARCHAR' if type_ == 'BLOB' else type_}'" for name, type_ in columns.items())
    select = ", ".join(f"unhex({name}) AS {name}" if type_ == "BLOB" else name for name, type_ in columns.items())
    connection.execute(
        f"COPY (SELECT {select} FROM read_json(?, format = 'newline_delimited', columns = {{{read}}}, "  # noqa: S608
        f"maximum_object_size = {OBJECT_BYTES_MAX}) ORDER BY {ORDER[kind]}) "
        f"TO '{_quoted(path)}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP}, PARQUET_VERSION v2)",
        [source],
    )


def _quoted(path: str) -> str:
    return path.replace("'", "''")


def describe(connection: duckdb.DuckDBPyConnection, job: dict[str, Any]) -> dict[str, Any]:
    """What has to be known of a file before it counts."""
    kind, path = job["kind"], job["path"]
    at = "start_ns" if kind == "spans" else "at_ns"
    head = connection.execute(
        f"SELECT count(*), coalesce(min({at}), 0), coalesce(max({at}), 0) FROM read_parquet(?)",  # noqa: S608
        [path],
    ).fetchone()
    assert head is not None
    traces: list[str] = []
    if kind == "spans":
        found = connection.execute("SELECT DISTINCT hex(trace) FROM read_parquet(?)", [path]).fetchall()
        traces = [trace for (trace,) in found]
    return {"entries": head[0], "since": head[1], "until": head[2], "traces": traces}


def span_rows(connection: duckdb.DuckDBPyConnection, job: dict[str, Any]) -> list[bytes]:
    """The spans of some traces, each as MessagePack."""
    found = connection.execute(
        f"SELECT {', '.join(SPAN_COLUMNS)} FROM read_parquet(?) WHERE "  # noqa: S608
        f"trace IN ({', '.join(['unhex(?)'] * len(job['traces']))}) LIMIT ?",
        [job["files"], *job["traces"], job["limit"]],
    ).fetchall()
    return [_PACK.encode(_span_of(row)) for row in found]


def trace_rows(connection: duckdb.DuckDBPyConnection, job: dict[str, Any]) -> list[tuple[int, str]]:
    """The traces with a span that fits, newest first: when that span began, and the id."""
    where, values = _span_conditions(job)
    having = ""
    if job["cursor"]:
        at, trace = job["cursor"]
        having = "HAVING (max(start_ns), hex(trace)) < (?, ?)"
        values += [at, trace]
    found = connection.execute(
        "SELECT max(start_ns) AS begun, hex(trace) AS id FROM read_parquet(?) "  # noqa: S608
        f"WHERE {where} GROUP BY trace {having} ORDER BY begun DESC, id DESC LIMIT ?",
        [job["files"], *values, job["limit"]],
    ).fetchall()
    return cast("list[tuple[int, str]]", found)


def _span_conditions(job: dict[str, Any]) -> tuple[str, list[Any]]:
    parts, values = _within("start_ns", job)
    for key, column in (("module", "module"), ("name", "name")):
        if job[key]:
            parts.append(f"{column} = ?")
            values.append(job[key])
    if job["status"] == "failed":
        parts.append("status <> 'ok'")
    elif job["status"]:
        parts.append("status = ?")
        values.append(job["status"])
    if job["slower_than_ns"]:
        parts.append("duration_ns >= ?")
        values.append(job["slower_than_ns"])
    if job["roots_only"]:
        parts.append("ltrim(hex(parent), '0') = ''")
    for key, value in job["attributes"].items():
        parts.append("(regexp_matches(attributes, ?) OR regexp_matches(resource, ?))")
        values += [_pattern(key, value)] * 2
    more, words = _words("name, message, attributes, events", job["words"])
    return " AND ".join([*parts, *more]) or "true", [*values, *words]


def _pattern(key: str, value: str) -> str:
    """The attribute in compact JSON, as text, number or boolean, alone or in a list."""
    as_key, as_text = (re.escape(_JSON.encode(each).decode()) for each in (key, value))
    return rf"{as_key}:(\[[^\]]*)?({as_text}|{re.escape(value)})[,\}}\]]"


def _within(at: str, job: dict[str, Any]) -> tuple[list[str], list[Any]]:
    parts: list[str] = []
    values: list[Any] = []
    if job["since_ns"]:
        parts.append(f"{at} >= ?")
        values.append(job["since_ns"])
    if job["until_ns"]:
        parts.append(f"{at} < ?")
        values.append(job["until_ns"])
    return parts, values


def log_rows(connection: duckdb.DuckDBPyConnection, job: dict[str, Any]) -> list[bytes]:
    """The newest logs that fit, each as MessagePack."""
    parts, values = _within("at_ns", job)
    if job["module"]:
        parts.append("(module = ? OR workload = ?)")
        values += [job["module"]] * 2
    if job["severity"]:
        parts.append("severity >= ?")
        values.append(job["severity"])
    if job["trace"]:
        parts.append("trace = unhex(?)")
        values.append(job["trace"])
    more, words = _words("message, exception, attributes", job["words"])
    where, values = " AND ".join([*parts, *more]) or "true", [*values, *words]
    found = connection.execute(
        f"SELECT {', '.join(LOG_COLUMNS)} FROM read_parquet(?) WHERE {where} "  # noqa: S608
        "ORDER BY at_ns DESC, message LIMIT ? OFFSET ?",
        [job["files"], *values, job["limit"], job["skip"]],
    ).fetchall()
    return [_PACK.encode(_log_of(row)) for row in found]


def _words(columns: str, words: Sequence[str]) -> tuple[list[str], list[Any]]:
    """The rule of SQLite's full-text search: each word stands there, the last may be unfinished."""
    parts = [f"regexp_matches(lower(concat_ws(' ', {columns})), ?)" for _ in words]
    patterns = [rf"(^|[^\pL\pN]){re.escape(word)}" for word in words]
    return parts, [*(f"{each}($|[^\\pL\\pN])" for each in patterns[:-1]), *patterns[-1:]]
