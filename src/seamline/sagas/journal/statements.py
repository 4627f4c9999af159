"""The statements of the hot path, the same for both stores, and what one write consists of.

A write is one saga's: everything in it is kept, or nothing. Many are written in one transaction, after one look at
whether the worker still has its place: a worker that was not heard of loses its row in ``seamline_saga_workers``, and
with it the right to write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import count
from typing import Any, Final

COLUMNS: Final = (
    "id, type, key, version, status, owner, due_ms, messages, run, created_ms, began_ms, updated_ms, ended_ms, input, "
    "crc, result, work, stuck, trace, parent, subject"
)

INTERRUPTED: Final = -1
"""Due at once, as with 0; and nobody knows what was under way."""

ORDER: Final = ("start", "entry", "work", "rest", "free", "end", "clear", "renew", "take", "unwait", "drop")
"""The kinds of statements, in the order in which a transaction runs them. They cast their numbers, since PostgreSQL
gets them as a document; see :mod:`.function`."""

STATEMENTS: Final[dict[str, str]] = {
    "start": (
        "INSERT INTO seamline_sagas (id, type, key, version, status, owner, due_ms, created_ms, began_ms, updated_ms, "
        "input, crc, trace, parent, subject) VALUES (?, ?, ?, CAST(? AS INTEGER), 'running', ?, CAST(? AS BIGINT), "
        "CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS BIGINT), ?, CAST(? AS BIGINT), ?, ?, ?) ON CONFLICT DO NOTHING"
    ),
    "entry": (
        "INSERT INTO seamline_saga_journal (saga, seq, entry, crc) "
        "VALUES (?, CAST(? AS INTEGER), ?, CAST(? AS BIGINT)) ON CONFLICT DO NOTHING"
    ),
    # How it stands, for people.
    "work": "UPDATE seamline_sagas SET status = ?, work = ?, stuck = ?, updated_ms = CAST(? AS BIGINT) WHERE id = ?",
    # It leaves memory. A message that came meanwhile makes it due at once.
    "rest": (
        "UPDATE seamline_sagas SET owner = NULL, due_ms = CASE WHEN messages > CAST(? AS INTEGER) THEN 0 "
        "ELSE CAST(? AS BIGINT) END, status = ?, work = ?, stuck = ?, updated_ms = CAST(? AS BIGINT) WHERE id = ?"
    ),
    "free": f"UPDATE seamline_sagas SET owner = NULL, due_ms = {INTERRUPTED} WHERE id = ? AND owner = ?",  # noqa: S608  # a number of ours
    "end": (
        "UPDATE seamline_sagas SET owner = NULL, due_ms = NULL, status = ?, result = ?, "
        "ended_ms = CAST(? AS BIGINT), updated_ms = CAST(? AS BIGINT), work = ?, stuck = '' WHERE id = ?"
    ),
    "clear": "DELETE FROM seamline_saga_messages WHERE saga = ?",
    "renew": (
        "UPDATE seamline_sagas SET run = CAST(? AS INTEGER), began_ms = CAST(? AS BIGINT), "
        "updated_ms = CAST(? AS BIGINT), input = ?, crc = CAST(? AS BIGINT), work = '' WHERE id = ?"
    ),
    "drop": "DELETE FROM seamline_saga_journal WHERE saga = ?",
    "unwait": "DELETE FROM seamline_saga_waits WHERE saga = ?",
    "take": "DELETE FROM seamline_saga_messages WHERE saga = ? AND n = CAST(? AS INTEGER)",
}

POST: Final = (
    "UPDATE seamline_sagas SET messages = messages + 1, due_ms = CASE WHEN owner IS NULL AND "  # noqa: S608  # likewise
    f"coalesce(due_ms, 0) <> {INTERRUPTED} THEN 0 ELSE due_ms END "
    "WHERE id = ? AND ended_ms = 0 RETURNING messages"
)
"""A message begins with its number, which also says to the saga's worker that there is one."""

POST_BODY: Final = (
    "INSERT INTO seamline_saga_messages (saga, n, kind, name, body, time_ms) "
    "VALUES (?, CAST(? AS INTEGER), ?, ?, ?, CAST(? AS BIGINT))"
)
FENCE: Final = "SELECT 1 FROM seamline_saga_workers WHERE owner = ?"
FOUND_BY_KEY: Final = "SELECT id FROM seamline_sagas WHERE type = ? AND key = ?"

Statement = tuple[str, tuple[Any, ...]]
Post = tuple[str, str, str, str, int]
"""To which saga; the message's kind, name and body; when."""


class Write:
    """What one saga writes at once.

    ``owner`` is the worker that must still have its place; empty for what anybody may write. ``key`` is set for a
    start that may meet a saga with the same key: ``(type, key)``.
    """

    __slots__ = ("key", "owner", "post", "statements")

    def __init__(
        self,
        owner: str,
        statements: list[Statement],
        key: tuple[str, str] | None = None,
        post: Post | None = None,
    ) -> None:
        self.owner = owner
        self.statements = statements
        self.key = key
        self.post = post


_PLACEHOLDER = re.compile(r"\?")


def numbered(sql: str) -> str:
    """``?`` as PostgreSQL writes it: ``$1``."""
    return filled(sql, (f"${number}" for number in count(1)))


def filled(sql: str, values: Iterable[str]) -> str:
    """Each ``?`` replaced by an expression."""
    each = iter(values)
    return _PLACEHOLDER.sub(lambda _: next(each), sql)
