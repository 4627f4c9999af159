"""The child process that has DuckDB: seals what is past into Parquet files, and answers questions to them.

    python -m seamline.observe.store.duck      jobs as lines of JSON on stdin, see child.py

Nothing but what a job names is read or written, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import struct
import sys
from typing import Any, Final

import duckdb
import msgspec

from seamline.observe.store.child import IDLE_S
from seamline.observe.store.parquet import CONFIG, describe, log_rows, span_rows, trace_rows
from seamline.observe.store.sealing import seal

JOBS: Final = {
    "seal": seal,
    "describe": describe,
    "spans": span_rows,
    "traces": trace_rows,
    "logs": log_rows,
}


def main() -> None:
    connection = duckdb.connect(config=CONFIG)
    out = sys.stdout.buffer
    with selectors.DefaultSelector() as selector, contextlib.suppress(BrokenPipeError):
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        waiting = b""
        while selector.select(IDLE_S):
            chunk = os.read(sys.stdin.fileno(), 1 << 16)
            if not chunk:
                return
            *lines, waiting = (waiting + chunk).split(b"\n")
            for line in lines:
                answer = msgspec.msgpack.encode(answered(connection, json.loads(line)))
                out.write(struct.pack(">I", len(answer)) + answer)
                out.flush()


def answered(connection: duckdb.DuckDBPyConnection, job: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"answer": JOBS[job["do"]](connection, job)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error)[:500]}"}


if __name__ == "__main__":
    main()
