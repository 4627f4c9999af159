"""Redis Streams: a stream for each partition of each topic, and a hash for each group's places.

Entries are numbered by ``<milliseconds>-<running number of the partition>``, which grows in both, so that the time and
the count of what lies between two entries can be read off their ids.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import redis.asyncio as client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from seamline.events import cloudevents
from seamline.events.brokers import urls
from seamline.events.brokers.partitioned import ORDER, REDELIVERY, REPLAY, Behind, Entry, decoded
from seamline.events.errors import BrokerError, BrokerUrlError
from seamline.events.record import Record
from seamline.events.transport import Promises
from seamline.kernel.settings import EventsSettings
from seamline.kernel.signal import log
from seamline.module.module import Start

_log = log.get(__name__)

CONNECT_TIMEOUT_S: Final = 5.0
BLOCK_S: Final = 10.0
"""How long one command waits for news; the connection is taken for dead when it is silent for much longer."""
APPEND_MAX: Final = 256
"""Records in one script: Redis does nothing else meanwhile."""
APPEND_BYTES: Final = 4 * 1024 * 1024
TRIM_EVERY: Final = 256
"""Appends between two looks at how much memory a topic takes."""
_BEGINNING: Final = "0-0"

# One step, whole or not at all: so that what is tried again after a lost answer comes after what it repeats, in order.
_APPEND: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last = {}
local at = 3
local retention = tonumber(ARGV[1])
for _ = 1, tonumber(ARGV[2]) do
    local key = KEYS[tonumber(ARGV[at])]
    local count = tonumber(ARGV[at + 1])
    if not last[key] then
        last[key] = {0, 0}
        local info = redis.pcall('XINFO', 'STREAM', key)
        if not info.err then
            for i = 1, #info, 2 do
                if info[i] == 'last-generated-id' then
                    local ms, number = string.match(info[i + 1], '(%d+)-(%d+)')
                    last[key] = {tonumber(ms), tonumber(number)}
                end
            end
        end
    end
    local place = last[key]
    place[1] = math.max(now, place[1])
    place[2] = place[2] + 1
    local id = string.format('%.0f-%.0f', place[1], place[2])
    redis.call('XADD', key, id, unpack(ARGV, at + 2, at + 1 + count))
    at = at + 2 + count
end
if retention > 0 then
    for key in pairs(last) do
        redis.call('XTRIM', key, 'MINID', '~', string.format('%.0f-0', now - retention))
    end
end
"""
_SAVE: Final = """
local lost = {}
for i = 2, #ARGV, 2 do
    if redis.call('HGET', KEYS[1], 'holder:' .. ARGV[i]) == ARGV[1] then
        redis.call('HSET', KEYS[1], 'place:' .. ARGV[i], ARGV[i + 1])
    else
        table.insert(lost, ARGV[i])
    end
end
return lost
"""


class RedisLog:
    """See :class:`seamline.events.brokers.partitioned.PartitionedLog`."""

    def __init__(self, url: str, *, app: str, settings: EventsSettings) -> None:
        urls.split(url)
        self._shown = urls.shown(url)
        self._app = app
        self._settings = settings
        self._partitions = settings.partitions
        try:
            self._redis = self._client(url)
            self._waiting = self._client(url, socket_timeout=3 * BLOCK_S, health_check_interval=0)
        except (ValueError, TypeError) as error:
            raise BrokerUrlError(
                f"the url {self._shown!r} cannot be read ({error})",
                'Write "redis://user:password@host:6379/0", or "rediss://" for TLS.',
            ) from error
        self._append_script = self._redis.register_script(_APPEND)
        self._save_script = self._redis.register_script(_SAVE)
        self._appended: dict[str, int] = {}

    @staticmethod
    def _client(url: str, **options: Any) -> Any:
        usual: dict[str, Any] = {
            "socket_timeout": BLOCK_S,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
        }
        made: Any = client.Redis.from_url(url, **(usual | options))  # pyright: ignore[reportUnknownMemberType]
        # Answers as they came: what the client makes of them costs more than reading them, and changes with versions.
        made.response_callbacks.clear()
        return made

    @asynccontextmanager
    async def reachable(self) -> AsyncGenerator[None]:
        """Name the server when it does not answer, or refuses."""
        try:
            yield
        except (AuthenticationError, NoPermissionError) as error:
            raise BrokerError(
                f"Redis at {self._shown} refuses us: {error}",
                "Check user and password in [events] broker, and that the user may use streams, hashes and scripts.",
            ) from error
        except (ResponseError, ReadOnlyError) as error:
            raise BrokerError(
                f"Redis at {self._shown} refuses: {error}", "Give it memory or disk, or name the primary, as it says."
            ) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise BrokerError(
                f"Redis at {self._shown} does not answer ({error or type(error).__name__})",
                "Check [events] broker and that the server is running; it is tried again by itself.",
            ) from error

    async def connect(self) -> Promises:
        async with self.reachable():
            await self._redis.execute_command("PING")
            durable_when = await self._policy()
        return Promises(
            name="Redis Streams",
            durable_when=durable_when,
            order=ORDER,
            redelivery=REDELIVERY,
            replay=REPLAY,
            limits="all retained events are in memory; one primary, no cluster; a failover may lose what its replica "
            "had not received",
        )

    async def _policy(self) -> str:
        """What Redis does before it acknowledges, in words; a warning where that is less than what was asked for."""
        try:
            found = await self._config("appendonly", "appendfsync", "maxmemory-policy")
        except (NoPermissionError, ResponseError):
            _log.warning("Redis at %s does not tell its persistence; see its appendonly and appendfsync", self._shown)
            return "not readable (CONFIG GET is refused): fsynced if appendonly is yes and appendfsync always"
        if found.get("maxmemory-policy", "noeviction").startswith("allkeys"):
            _log.warning("Redis at %s may evict events: set maxmemory-policy noeviction", self._shown)
        if found.get("appendonly") != "yes":
            said = "written to memory only (appendonly no): a crash of Redis loses events"
        elif found.get("appendfsync") == "always":
            said = "fsynced (appendfsync always)"
        else:
            said = (
                f"written, fsynced within about a second (appendfsync {found.get('appendfsync')}): power loss loses it"
            )
        durable = said.startswith("fsynced")
        level = logging.INFO if durable or self._settings.durability == "relaxed" else logging.WARNING
        remedy = "" if durable else "; set `appendonly yes` and `appendfsync always` for events that survive power loss"
        _log.log(level, "Redis at %s: a published event is %s%s", self._shown, said, remedy)
        return said

    async def _config(self, *names: str) -> dict[str, str]:
        words: list[bytes] = await self._redis.execute_command("CONFIG GET", *names)
        return {name: value.decode() for name, value in _pairs(words).items()}

    async def close(self) -> None:
        for each in (self._redis, self._waiting):
            with contextlib.suppress(RedisError, OSError):
                await each.aclose()

    def stream(self, topic: str, partition: int) -> str:
        return f"{self._app}:events:{topic}:{partition}"

    def _group(self, topic: str, group: str) -> str:
        return f"{self._app}:places:{topic}:{group}"

    # Writing

    async def append(self, topic: str, records: Sequence[tuple[int, Record]]) -> None:
        words: list[Any] = []
        count = size = 0
        for partition, record in records:
            fields: list[Any] = [b"data", record.data]
            for name, value in cloudevents.to_headers(record, self._app).items():
                fields += (name, value)
            words += (partition + 1, len(fields), *fields)
            count += 1
            size += len(record.data)
            if count >= APPEND_MAX or size >= APPEND_BYTES:
                await self._append(topic, count, words)
                words, count, size = [], 0, 0
        if count:
            await self._append(topic, count, words)
        self._appended[topic] = self._appended.get(topic, 0) + 1
        if self._appended[topic] % TRIM_EVERY == 0:
            await self._trim(topic)

    async def _append(self, topic: str, count: int, words: Sequence[Any]) -> None:
        keys = [self.stream(topic, number) for number in range(self._partitions)]
        retention_ms = int(self._settings.retention_s * 1000)
        async with self.reachable():
            await self._append_script(keys=keys, args=[retention_ms, count, *words])

    async def _trim(self, topic: str) -> None:
        """Keep a topic within ``retention_bytes``; Redis knows an estimate only."""
        if not self._settings.retention_bytes:
            return
        keys = [self.stream(topic, number) for number in range(self._partitions)]
        async with self.reachable():
            usage = await self._each(["MEMORY", "USAGE", key] for key in keys)
            taken = sum(each or 0 for each in usage)
            if taken <= self._settings.retention_bytes:
                return
            share = self._settings.retention_bytes / taken
            lengths = await self._each(["XLEN", key] for key in keys)
            await self._each(
                ["XTRIM", key, "MAXLEN", "~", int(n * share)] for key, n in zip(keys, lengths, strict=True)
            )

    async def _each(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        """Several commands in one round trip."""
        pipeline: Any = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return list(await pipeline.execute())

    # Where groups are

    async def resolve(self, topic: str, start: Start) -> Mapping[int, str]:
        numbers = range(self._partitions)
        if start == "earliest":
            return dict.fromkeys(numbers, _BEGINNING)
        async with self.reachable():
            if start == "latest":
                found = await self._each(["XREVRANGE", self.stream(topic, n), "+", "-", "COUNT", 1] for n in numbers)
                return {n: _text(each[0][0]) if each else _BEGINNING for n, each in zip(numbers, found, strict=True)}
            if isinstance(start, int):
                return {n: await self._numbered(self.stream(topic, n), start) for n in numbers}
            before = f"{int(start.timestamp() * 1000) - 1}"
            found = await self._each(["XREVRANGE", self.stream(topic, n), before, "-", "COUNT", 1] for n in numbers)
        return {n: _text(each[0][0]) if each else _BEGINNING for n, each in zip(numbers, found, strict=True)}

    async def _numbered(self, key: str, number: int) -> str:
        """The entry before the one with this running number, by bisection over time."""
        last = await self._each([["XREVRANGE", key, "+", "-", "COUNT", 1], ["XRANGE", key, "-", "+", "COUNT", 1]])
        if not last[0]:
            return _BEGINNING
        (high, high_number), (low, low_number) = (_parts(each[0][0]) for each in last)
        if number > high_number:
            return f"{high}-{high_number}"
        if number <= low_number:
            return _BEGINNING
        while low < high:  # the last millisecond whose first entry is not after `number`
            middle = (low + high + 1) // 2
            first = (await self._each([["XRANGE", key, middle, "+", "COUNT", 1]]))[0]
            if first and _parts(first[0][0])[1] <= number:
                low = middle
            else:
                high = middle - 1
        found = (await self._each([["XREVRANGE", key, f"{low}-{number - 1}", "-", "COUNT", 1]]))[0]
        return _text(found[0][0]) if found else _BEGINNING

    async def begin(self, topic: str, group: str, places: Mapping[int, bytes], *, over: bool) -> None:
        key = self._group(topic, group)
        command = "HSET" if over else "HSETNX"
        async with self.reachable():
            commands: list[list[Any]] = [[command, key, f"place:{number}", place] for number, place in places.items()]
            if over:  # first, so that no holder writes over what is about to be written
                commands.insert(0, ["HDEL", key, *(f"holder:{number}" for number in places)])
            await self._each(commands)

    async def places(self, topic: str, group: str) -> Mapping[int, bytes]:
        async with self.reachable():
            words: list[bytes] = await self._redis.execute_command("HGETALL", self._group(topic, group))
        found = _pairs(words)
        return {int(name[6:]): value for name, value in found.items() if name.startswith("place:")}

    async def claim(self, topic: str, group: str, partitions: Iterable[int], holder: str) -> Mapping[int, bytes]:
        numbers = list(partitions)
        key = self._group(topic, group)
        async with self.reachable():
            await self._each(["HSET", key, f"holder:{number}", holder] for number in numbers)
            found = await self._each(["HGET", key, f"place:{number}"] for number in numbers)
        return {number: place for number, place in zip(numbers, found, strict=True) if place is not None}

    async def save(self, topic: str, group: str, holder: str, places: Mapping[int, bytes]) -> Iterable[int]:
        words = [word for number, place in places.items() for word in (number, place)]
        async with self.reachable():
            lost: list[bytes] = await self._save_script(keys=[self._group(topic, group)], args=[holder, *words])
        return [int(number) for number in lost]

    # Reading

    async def pick(self, topic: str, partition: int, offsets: Sequence[str]) -> Sequence[Entry]:
        key = self.stream(topic, partition)
        async with self.reachable():
            found = await self._each(["XRANGE", key, offset, offset] for offset in offsets)
        return [_entry(topic, *each[0]) for each in found if each]

    async def behind(self, topic: str, after: Mapping[int, str]) -> Mapping[int, Behind]:
        commands: list[list[Any]] = []
        for number, offset in after.items():
            key = self.stream(topic, number)
            commands += [
                ["XREVRANGE", key, "+", "-", "COUNT", 1],
                ["XRANGE", key, f"({offset}", "+", "COUNT", 1],
                ["XLEN", key],
            ]
        async with self.reachable():
            found = await self._each(commands)
        behind: dict[int, Behind] = {}
        for place, (number, offset) in enumerate(after.items()):
            last, following, length = found[3 * place : 3 * place + 3]
            count = min(length, _parts(last[0][0])[1] - _parts(offset)[1]) if following else 0
            oldest_ms = _entry(topic, *following[0]).record.time_ms if following else 0
            behind[number] = Behind(count, oldest_ms)
        return behind

    def reader(self, topic: str) -> RedisReader:
        return RedisReader(self, self._waiting, topic, self._partitions)


class RedisReader:
    """See :class:`seamline.events.brokers.partitioned.Reader`. While it waits it has a connection of its own."""

    def __init__(self, log: RedisLog, waiting: Any, topic: str, partitions: int) -> None:
        self._log = log
        self._redis = waiting
        self._topic = topic
        self._numbers = {log.stream(topic, number).encode(): number for number in range(partitions)}

    async def read(self, after: Mapping[int, str], limit: int, *, wait: bool) -> Sequence[tuple[int, Entry]]:
        keys = [self._log.stream(self._topic, number) for number in after]
        block = ["BLOCK", int(BLOCK_S * 1000)] if wait else []
        while True:
            async with self._log.reachable():
                found: list[Any] | None = await self._redis.execute_command(
                    "XREAD", "COUNT", limit, *block, "STREAMS", *keys, *after.values()
                )
            if found or not wait:
                return [
                    (self._numbers[key], _entry(self._topic, offset, fields))
                    for key, rows in found or ()
                    for offset, fields in rows
                ]

    async def close(self) -> None:
        """Its connection goes back to the pool when a read ends."""


def _entry(topic: str, offset: bytes, fields: Sequence[bytes]) -> Entry:
    headers = _pairs(fields)
    data = headers.pop("data", b"")
    return decoded(topic, offset.decode(), {name: value.decode() for name, value in headers.items()}, data)


def _pairs(words: Sequence[bytes]) -> dict[str, bytes]:
    return {words[place].decode(): words[place + 1] for place in range(0, len(words), 2)}


def _parts(offset: bytes | str) -> tuple[int, int]:
    time_ms, _, number = _text(offset).partition("-")
    return int(time_ms), int(number)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
