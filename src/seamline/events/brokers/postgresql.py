"""PostgreSQL as a broker: the schema ``seamline_events`` with a few tables for each application.

A topic has a row that counts its events. Whoever appends takes that row until the commit, so that offsets are given in
the order of commits and have no gaps: a reader that has seen an offset will never see a smaller one appear. (Sequences
are given out before the commit, and readers of theirs have to wait for the oldest transaction of the whole server.) A
topic is written by one relay in batches, so nobody queues for the row.

NOTIFY is sent once for each append, in its transaction; a reader listens before it looks, and looks every few seconds
in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import msgspec

from seamline.events import cloudevents
from seamline.events.brokers import urls
from seamline.events.brokers.partitioned import ORDER, REDELIVERY, REPLAY, Behind, Entry, decoded
from seamline.events.errors import BrokerError, BrokerUrlError, EventTooLargeError
from seamline.events.record import Record
from seamline.events.transport import Promises
from seamline.kernel.settings import EventsSettings
from seamline.kernel.signal import log
from seamline.module.module import Start

_log = log.get(__name__)

TIMEOUT_S: Final = 10.0
POLL_S: Final = 5.0
"""A reader looks so often although nobody has notified it."""
POOL_MAX: Final = 4
TRIM_EVERY: Final = 64
"""Appends between two looks at what is to be deleted."""
TRIM_MAX: Final = 5_000
BYTES_MAX: Final = 64 * 1024 * 1024
SCHEMA: Final = "seamline_events"

# A connection that breaks under a statement is an internal error of the client now and then.
_client: Final[Any] = asyncpg  # which has types for a part of itself only
_AWAY: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)

_TABLES: Final = """
CREATE SCHEMA IF NOT EXISTS seamline_events;
CREATE TABLE IF NOT EXISTS {topics} (
    topic text PRIMARY KEY, last bigint NOT NULL DEFAULT 0, size bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
CREATE TABLE IF NOT EXISTS {events} (
    topic text NOT NULL, "partition" int NOT NULL, "offset" bigint NOT NULL, size bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(), headers text NOT NULL, data bytea NOT NULL,
    PRIMARY KEY (topic, "partition", "offset")
);
CREATE INDEX IF NOT EXISTS {index} ON {events} (topic, "offset");
CREATE TABLE IF NOT EXISTS {places} (
    topic text NOT NULL, "group" text NOT NULL, "partition" int NOT NULL, holder text NOT NULL DEFAULT '',
    place bytea NOT NULL, PRIMARY KEY (topic, "group", "partition")
) WITH (fillfactor = 50);
"""
# `size` counts the bytes of the topic up to and with the event, so that what exceeds the limit can be told by it.
_APPEND: Final = """
WITH new AS (
    SELECT * FROM unnest($2::int[], $3::text[], $4::bytea[]) WITH ORDINALITY AS n ("partition", headers, data, place)
), counted AS (
    INSERT INTO {topics} AS t (topic, last, size)
    SELECT $1, count(*), sum(length(data)) FROM new
    ON CONFLICT (topic) DO UPDATE SET last = t.last + excluded.last, size = t.size + excluded.size
    RETURNING last - (SELECT count(*) FROM new) AS before, size - (SELECT sum(length(data)) FROM new) AS bytes
), kept AS (
    INSERT INTO {events} (topic, "partition", "offset", size, headers, data)
    SELECT $1, "partition", before + place, bytes + sum(length(data)) OVER (ORDER BY place), headers, data
    FROM new, counted
)
SELECT pg_notify($5, $1)
"""
_READ: Final = """
SELECT found.* FROM unnest($2::int[], $3::bigint[]) AS after (number, place) CROSS JOIN LATERAL (
    SELECT "partition", "offset", headers, data FROM {events} e
    WHERE e.topic = $1 AND e."partition" = after.number AND e."offset" > after.place ORDER BY e."offset" LIMIT $4
) found
"""
_BEHIND: Final = """
SELECT after.number, count(*), (
    SELECT headers FROM {events} f
    WHERE f.topic = $1 AND f."partition" = after.number AND f."offset" > after.place ORDER BY f."offset" LIMIT 1
) FROM unnest($2::int[], $3::bigint[]) AS after (number, place)
JOIN {events} e ON e.topic = $1 AND e."partition" = after.number AND e."offset" > after.place
GROUP BY after.number, after.place
"""
_TRIM: Final = """
DELETE FROM {events} WHERE topic = $1 AND "offset" IN (
    SELECT "offset" FROM {events} WHERE topic = $1 ORDER BY "offset" LIMIT $4
) AND ($2 > 0 AND at < now() - make_interval(secs => $2)
    OR $3 > 0 AND size <= (SELECT size - $3 FROM {topics} WHERE topic = $1))
"""
_BEGIN: Final = """
INSERT INTO {places} (topic, "group", "partition", place)
SELECT $1, $2, * FROM unnest($3::int[], $4::bytea[]) ON CONFLICT (topic, "group", "partition") DO
"""
_CLAIM: Final = """
UPDATE {places} SET holder = $4 WHERE topic = $1 AND "group" = $2 AND "partition" = ANY ($3::int[])
RETURNING "partition", place
"""
_SAVE: Final = """
UPDATE {places} AS p SET place = new.place FROM unnest($4::int[], $5::bytea[]) AS new ("partition", place)
WHERE p.topic = $1 AND p."group" = $2 AND p.holder = $3 AND p."partition" = new."partition" RETURNING p."partition"
"""


class PostgresqlLog:
    """See :class:`seamline.events.brokers.partitioned.PartitionedLog`."""

    def __init__(self, url: str, *, app: str, settings: EventsSettings) -> None:
        urls.split(url)
        self._shown = urls.shown(url)
        self._url = "postgresql://" + url.partition("://")[2]
        self._app = app
        self._settings = settings
        self._partitions = settings.partitions
        self._names = {
            name: f'{SCHEMA}."{app}_{name}"'.replace("\0", "") for name in ("topics", "events", "places")
        } | {"index": f'"{app}_events_by_offset"'}
        self._pool: Any = None
        self._placing: Any = None
        """Places are written without waiting for the disk: a lost one is an event handed out again."""
        self._listening: Any = None
        self._listen_lock = asyncio.Lock()
        self.watchers: dict[str, set[asyncio.Event]] = {}
        self._appends: dict[str, int] = {}

    def _sql(self, statement: str) -> str:
        return statement.format(**self._names)

    @asynccontextmanager
    async def reachable(self) -> AsyncGenerator[None]:
        """Name the server when it does not answer, or refuses."""
        try:
            yield
        except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
            raise BrokerError(
                f"PostgreSQL at {self._shown} refuses us: {error}",
                "Check user, password and database name in [events] broker.",
            ) from error
        except asyncpg.InsufficientPrivilegeError as error:
            raise BrokerError(
                f"PostgreSQL at {self._shown} refuses: {error}",
                f"The user needs CREATE on the database, or the schema {SCHEMA!r} must exist and be the user's.",
            ) from error
        except _AWAY as error:
            raise BrokerError(
                f"PostgreSQL at {self._shown} does not answer ({str(error) or type(error).__name__})",
                "Check [events] broker and that the server is running; it is tried again by itself.",
            ) from error

    # Connecting

    async def connect(self) -> Promises:
        try:
            async with self.reachable():
                relaxed = self._settings.durability == "relaxed"
                if self._pool is None:
                    self._placing = await self._made_pool({"synchronous_commit": "off"})
                    self._pool = await self._made_pool({"synchronous_commit": "off"} if relaxed else {})
                async with self._pool.acquire() as connection:
                    await self._make_tables(connection)
                    said = await self._policy(connection)
        except (ValueError, asyncpg.ClientConfigurationError) as error:
            raise BrokerUrlError(
                f"the url {self._shown!r} cannot be used ({error})", 'Write "postgresql://user:password@host:5432/name"'
            ) from error
        return Promises(
            name="PostgreSQL",
            durable_when=said,
            order=ORDER,
            redelivery=REDELIVERY,
            replay=REPLAY,
            limits=f"an event has at most {BYTES_MAX} bytes; a topic's events are written by one transaction at a time",
        )

    async def _made_pool(self, server_settings: dict[str, str]) -> Any:
        return await _client.create_pool(
            self._url,
            min_size=0,
            max_size=POOL_MAX,
            timeout=TIMEOUT_S,
            command_timeout=3 * TIMEOUT_S,
            reset=_leave_as_it_is,
            server_settings={"application_name": f"seamline {self._app}"} | server_settings,
        )

    async def _make_tables(self, connection: Any) -> None:
        async with connection.transaction():
            # CREATE IF NOT EXISTS of two at once may fail: they come one after another.
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('seamline_events'))")
            if await connection.fetchval("SELECT to_regclass($1)", self._names["places"]) is None:
                await connection.execute(self._sql(_TABLES))

    async def _policy(self, connection: Any) -> str:
        """What the server does before it acknowledges, in words; a warning where that is less than fsync."""
        fsync, commit, pages = await connection.fetchrow(
            "SELECT current_setting('fsync'), current_setting('synchronous_commit'), "
            "current_setting('full_page_writes')"
        )
        durable = fsync == "on" and commit != "off" and pages == "on"
        settings = f"fsync {fsync}, synchronous_commit {commit}, full_page_writes {pages}"
        said = f"fsynced ({settings})" if durable else f"written, and lost by a crash or power loss ({settings})"
        level = logging.INFO if durable or self._settings.durability == "relaxed" else logging.WARNING
        remedy = "" if durable else "; set fsync, synchronous_commit and full_page_writes to on for durable events"
        _log.log(level, "PostgreSQL at %s: a published event is %s%s", self._shown, said, remedy)
        return said

    async def close(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.terminate()
        for pool in (self._pool, self._placing):
            if pool is not None:
                pool.terminate()
        self._pool = self._placing = None

    @asynccontextmanager
    async def _connection(self, *, placing: bool = False) -> AsyncGenerator[Any]:
        async with self.reachable():
            pool = self._placing if placing else self._pool
            if pool is None:
                raise asyncpg.InterfaceError("not started, or closed")
            async with pool.acquire(timeout=TIMEOUT_S) as connection:
                try:
                    yield connection
                except _AWAY:
                    connection.terminate()
                    raise

    # Waking

    def _channel(self) -> str:
        return f"seamline_events_{self._app}"[:63]

    async def listen(self) -> None:
        """Hear of appends; raises BrokerError. Readers look only after they listen, so that none is missed."""
        async with self._listen_lock:
            if self._listening is not None and not self._listening.is_closed():
                return
            async with self.reachable():
                self._listening = await _client.connect(self._url, timeout=TIMEOUT_S)
                self._listening.add_termination_listener(self._silenced)
                await self._listening.add_listener(self._channel(), self._heard)

    def _heard(self, _connection: object, _pid: int, _channel: str, topic: object) -> None:
        for watcher in self.watchers.get(str(topic), ()):
            watcher.set()

    def _silenced(self, _connection: object) -> None:
        for watchers in self.watchers.values():
            for watcher in watchers:
                watcher.set()

    # Writing

    async def append(self, topic: str, records: Sequence[tuple[int, Record]]) -> None:
        for _, record in records:
            if len(record.data) > BYTES_MAX:
                raise EventTooLargeError(
                    f"the event {record.type} {record.id} has {len(record.data)} bytes; at most {BYTES_MAX} are kept",
                    "Put what is large elsewhere, and its name in the event.",
                )
        numbers = [partition for partition, _ in records]
        headers = [msgspec.json.encode(cloudevents.to_headers(record, self._app)).decode() for _, record in records]
        data = [record.data for _, record in records]
        async with self._connection() as connection:
            await connection.execute(self._sql(_APPEND), topic, numbers, headers, data, self._channel())
        self._appends[topic] = self._appends.get(topic, 0) + 1
        if self._appends[topic] % TRIM_EVERY == 0:
            await self._trim(topic)

    async def _trim(self, topic: str) -> None:
        retention = float(self._settings.retention_s), self._settings.retention_bytes
        async with self._connection(placing=True) as connection:
            deleted = ""
            while deleted in {"", f"DELETE {TRIM_MAX}"}:
                deleted = await connection.execute(self._sql(_TRIM), topic, *retention, TRIM_MAX)

    # Where groups are

    async def resolve(self, topic: str, start: Start) -> Mapping[int, str]:
        async with self._connection() as connection:
            if start == "earliest":
                after = 0
            elif start == "latest":
                query = f"SELECT last FROM {self._names['topics']} WHERE topic = $1"  # noqa: S608  # a name of ours
                after = await connection.fetchval(query, topic) or 0
            elif isinstance(start, int):
                after = max(0, start - 1)
            else:
                query = f'SELECT max("offset") FROM {self._names["events"]} WHERE topic = $1 AND at < $2'  # noqa: S608
                after = await connection.fetchval(query, topic, start) or 0
        return dict.fromkeys(range(self._partitions), str(after))

    async def begin(self, topic: str, group: str, places: Mapping[int, bytes], *, over: bool) -> None:
        then = "UPDATE SET place = excluded.place, holder = ''" if over else "NOTHING"
        async with self._connection() as connection:
            await connection.execute(self._sql(_BEGIN) + then, topic, group, [*places], [*places.values()])

    async def places(self, topic: str, group: str) -> Mapping[int, bytes]:
        query = f'SELECT "partition", place FROM {self._names["places"]} WHERE topic = $1 AND "group" = $2'  # noqa: S608
        async with self._connection() as connection:
            return {number: bytes(place) for number, place in await connection.fetch(query, topic, group)}

    async def claim(self, topic: str, group: str, partitions: Iterable[int], holder: str) -> Mapping[int, bytes]:
        async with self._connection() as connection:
            rows = await connection.fetch(self._sql(_CLAIM), topic, group, list(partitions), holder)
        return {number: bytes(place) for number, place in rows}

    async def save(self, topic: str, group: str, holder: str, places: Mapping[int, bytes]) -> Iterable[int]:
        async with self._connection(placing=True) as connection:
            rows = await connection.fetch(self._sql(_SAVE), topic, group, holder, [*places], [*places.values()])
        return places.keys() - {number for (number,) in rows}

    # Reading

    async def pick(self, topic: str, partition: int, offsets: Sequence[str]) -> Sequence[Entry]:
        query = (
            f'SELECT "offset", headers, data FROM {self._names["events"]} '  # noqa: S608  # a name of ours
            'WHERE topic = $1 AND "partition" = $2 AND "offset" = ANY ($3::bigint[])'
        )
        async with self._connection() as connection:
            rows = await connection.fetch(query, topic, partition, [int(offset) for offset in offsets])
        found = {str(offset): _entry(topic, offset, headers, data) for offset, headers, data in rows}
        return [found[offset] for offset in offsets if offset in found]

    async def behind(self, topic: str, after: Mapping[int, str]) -> Mapping[int, Behind]:
        async with self._connection() as connection:
            rows = await connection.fetch(self._sql(_BEHIND), topic, [*after], [int(each) for each in after.values()])
        return {number: Behind(count, _entry(topic, 0, headers, b"").record.time_ms) for number, count, headers in rows}

    async def read(self, topic: str, after: Mapping[int, str], limit: int) -> Sequence[tuple[int, Entry]]:
        async with self._connection() as connection:
            places = [int(offset) for offset in after.values()]
            rows = await connection.fetch(self._sql(_READ), topic, [*after], places, limit)
        return [(number, _entry(topic, offset, headers, data)) for number, offset, headers, data in rows]

    def reader(self, topic: str) -> PostgresqlReader:
        return PostgresqlReader(self, topic)


class PostgresqlReader:
    """See :class:`seamline.events.brokers.partitioned.Reader`."""

    def __init__(self, log: PostgresqlLog, topic: str) -> None:
        self._log = log
        self._topic = topic
        self._news = asyncio.Event()
        log.watchers.setdefault(topic, set()).add(self._news)

    async def read(self, after: Mapping[int, str], limit: int, *, wait: bool) -> Sequence[tuple[int, Entry]]:
        while True:
            await self._log.listen()
            self._news.clear()
            found = await self._log.read(self._topic, after, limit)
            if found or not wait:
                return found
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._news.wait()

    async def close(self) -> None:
        self._log.watchers[self._topic].discard(self._news)


async def _leave_as_it_is(_connection: object) -> None:
    """Nothing of a statement stays with the connection; to make sure of it would be another round trip."""


def _entry(topic: str, offset: int, headers: str, data: bytes) -> Entry:
    return decoded(topic, str(offset), msgspec.json.decode(headers, type=dict[str, str]), bytes(data))
