"""The journal of sagas in a module's own database: what is written, read and taken over, on both kinds of store."""

from __future__ import annotations

from seamline.kernel.store import Database
from seamline.sagas.journal.journal import Journal
from seamline.sagas.journal.postgresql import PostgresqlStore
from seamline.sagas.journal.sqlite import SqliteStore

__all__ = ["Journal", "open_journal"]


def open_journal(database: Database) -> Journal:
    """The journal in ``database``; call :meth:`Journal.start` before anything else."""
    return Journal(SqliteStore(database) if database.path is not None else PostgresqlStore(database))
