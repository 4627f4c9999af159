"""The embedded transport, as the conformance suite wants it: what is published goes into the module's own log."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from tests.events.conformance import TOPIC, Arena, Broker

from seamline.events.embedded import EmbeddedTransport, Home
from seamline.events.inbox import Inbox
from seamline.events.leases import Leases
from seamline.events.log import Log, open_log
from seamline.events.positions import Bookmarks
from seamline.events.reading import LogService
from seamline.events.record import Record
from seamline.events.tables import METADATA
from seamline.kernel.store import Database
from seamline.module.port import CallPort


class Nothing:
    """The broker that it does without."""

    def url(self, password: str = "") -> str:
        return password

    def kill(self) -> None:
        raise NotImplementedError

    start = stop = kill


@contextmanager
def serve_nothing() -> Generator[Broker]:
    yield Nothing()


class _Port:
    """Calls that reach the log's service in this process."""

    def __init__(self, way: EmbeddedWay) -> None:
        self._way = way

    def stub(self, *_: object) -> LogService:
        return self._way.service


class EmbeddedWay(EmbeddedTransport):
    """As a process has it that hosts the publishing and the consuming module."""

    def __init__(self, arena: Arena, leases: Callable[[str], Leases]) -> None:
        def home(module: str) -> Home:
            return Home(arena.database, leases(module), Inbox(arena.database, arena.clock), Bookmarks(arena.database))

        super().__init__(cast("CallPort", _Port(self)), arena.clock, arena.settings.partitions, home)
        self._arena = arena
        self._database = Database(f"sqlite:///{arena.folder}/{TOPIC}.sqlite3", TOPIC)
        self._others: list[Log] = cast("Any", arena).__dict__.setdefault("logs", [])

    async def start(self) -> None:
        await self._database.start()
        self._log = open_log(self._database, self._arena.settings, self._arena.clock, self._announce)
        await self._log.start()
        self._others.append(self._log)
        self.service = LogService(self._log, self._arena.clock)
        await self._arena.database.ensure(METADATA)

    def _announce(self) -> None:
        for log in self._others:
            if log is not self._log:
                log.poke()

    async def publish(self, topic: str, records: Sequence[Record]) -> None:
        await self._log.append(records)

    async def close(self) -> None:
        await super().close()
        self.service.end()
        self._others.remove(self._log)
        await self._log.close()
        await self._database.close()
