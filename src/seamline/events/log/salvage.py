"""Damaged pages in a SQLite log: what can still be read moves to a new table."""

# ruff: noqa: S608  # statements are put together from constants of this file

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection

from seamline.events.log.interface import Damage
from seamline.events.log.rows import Kept
from seamline.events.log.tables import log

ROWS_AT_ONCE: Final = 256
_COLUMNS: Final = "position, partition, time_ms, checksum, body"

# A damaged row may hold values of any type, which Python would stumble over.
READ: Final = (
    "SELECT position, CAST(partition AS INTEGER), CAST(time_ms AS INTEGER), CAST(checksum AS INTEGER), "
    "CAST(body AS BLOB) FROM seamline_log "
)
READ_AFTER: Final = READ + "WHERE position > ? ORDER BY position LIMIT ?"


def salvage(connection: Connection, reader: sqlite3.Connection, now_ms: int) -> list[Damage]:
    """The damaged table stays, as ``seamline_log_damaged_<time>``, for those who know more about it than we do.

    Args:
        connection: in a transaction that writes.
        reader: another connection, because one that has met damage may not write any more.
    """
    aside = f"seamline_log_damaged_{now_ms}"
    last = connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'seamline_log'").scalar() or 0
    connection.exec_driver_sql(f"ALTER TABLE seamline_log RENAME TO {aside}")
    log.create(connection)
    connection.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES ('seamline_log', ?)", (last,))
    lost: list[Damage] = []
    after = 0
    for rows in _pieces(reader, last):
        if isinstance(rows, Damage):
            lost.append(rows)
            continue
        new = [row for row in rows if row.position > after]
        lost += [Damage(row.position, row.position, "the record has no value") for row in new if None in row]
        good = [tuple(row) for row in new if None not in row]
        if good:
            connection.exec_driver_sql(f"INSERT INTO seamline_log ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)", good)
        after = max([after, *(row.position for row in new)])
    return lost


def _pieces(reader: sqlite3.Connection, last: int) -> Iterator[list[Kept] | Damage]:
    """The rows that can be read, in pieces, and between them where rows cannot be."""
    after = 0
    while after < last:
        limit = ROWS_AT_ONCE
        while (rows := _read(reader, after, limit)) is None and limit > 1:
            limit //= 4
        if rows is None:
            begin = after + 1
            while after < last and rows is None:
                after += 1
                rows = _read(reader, after, 1)
            yield Damage(begin, min(after, last), "the page that held the records cannot be read")
        if not rows:
            return
        yield rows
        after = max(after + 1, rows[-1].position)


def _read(reader: sqlite3.Connection, after: int, limit: int) -> list[Kept] | None:
    try:
        return [Kept(*row) for row in reader.execute(READ_AFTER, (after, limit))]
    except sqlite3.Error:
        return None
