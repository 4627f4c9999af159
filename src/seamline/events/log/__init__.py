"""The durable log of a module: in its own SQLite file or its own PostgreSQL schema, in one commit with its data.

An acknowledged event is on disk. Who reads it, remembers how far and does what with it is not known here.
"""

from __future__ import annotations

from collections.abc import Callable

from seamline.events.log.durable import DurableLog
from seamline.events.log.interface import Damage, Ends, Log, LogStats, Page, Stored
from seamline.events.log.postgresql import PostgresqlStore
from seamline.events.log.sqlite import SqliteStore
from seamline.kernel.clock import Clock
from seamline.kernel.settings.sections import EventsSettings
from seamline.kernel.store import Database

__all__ = ["Damage", "Ends", "Log", "LogStats", "Page", "Stored", "open_log"]


def _nobody() -> None:
    return


def open_log(database: Database, settings: EventsSettings, clock: Clock, announce: Callable[[], None] = _nobody) -> Log:
    """The log of the module that ``database`` belongs to; to be started.

    Args:
        announce: called whenever this process has appended, after the commit: wake the other processes.
    """
    store = PostgresqlStore(database) if database.path is None else SqliteStore(database)
    return DurableLog(database, store, settings, clock, announce)
