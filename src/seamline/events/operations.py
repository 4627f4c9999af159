"""What the command line asks of events, answered by one process that hosts the module. Answers are JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.errors import EventDecodeError, UnknownGroupError
from seamline.events.inbox import HandledElsewhereError
from seamline.events.reading import read_start
from seamline.events.record import SUBJECT
from seamline.kernel.errors import SeamlineError

if TYPE_CHECKING:
    from seamline.events.consumer import Consumer
    from seamline.events.log import Damage, Log, Stored
    from seamline.events.runtime import EventsRuntime, Seat

TAIL_MAX = 1000
LOOK_MAX = 50_000


class Operations:
    """Each operation takes ``module`` among its arguments; None, where it may be, is every module hosted here."""

    def __init__(self, runtime: EventsRuntime) -> None:
        self._runtime = runtime
        self._operations: dict[str, Callable[..., Awaitable[Any]]] = {
            "topics": self._topics,
            "lag": self._lag,
            "tail": self._tail,
            "verify": self._verify,
            "repair": self._repair,
            "replay": self._replay,
            "dead list": self._dead_list,
            "dead show": self._dead_show,
            "dead retry": self._dead_retry,
            "dead drop": self._dead_drop,
        }

    async def run(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Raises UnknownGroupError for what is not there, and TypeError for arguments that do not fit."""
        found = self._operations.get(operation)
        if found is None:
            raise UnknownGroupError(
                f"there is no operation {operation!r} on events", f"Known: {', '.join(self._operations)}."
            )
        return await found(**arguments)

    # Logs.

    def _logs(self, module: str | None) -> dict[str, Log]:
        logs = self._runtime.logs
        if module is None:
            return logs
        if module not in logs:
            raise UnknownGroupError(
                f"module {module!r} declares no events, so it has no log",
                "`seamline events topics` lists those that do.",
            )
        return {module: logs[module]}

    async def _topics(self, module: str | None = None) -> list[dict[str, Any]]:
        topics: list[dict[str, Any]] = []
        for name, log in self._logs(module).items():
            stats = await log.stats()
            topics.append({
                "module": name,
                "events": self._runtime.events_declared(name),
                "first": stats.first,
                "last": stats.last,
                "delayed": stats.delayed,
                "transport": self._runtime.transport.promises.name,
                "durable_when": self._durable_when(),
            })  # fmt: skip
        return topics

    def _durable_when(self) -> str:
        strict = self._runtime.transport.promises.durable_when
        if self._runtime.settings.durability == "relaxed" and not self._runtime.transport.relayed:
            return (
                f"a moment has passed since it was published (durability is relaxed); in a transaction, when {strict}"
            )
        return strict

    async def _tail(
        self,
        module: str,
        after: int | None = None,
        limit: int = 10,
        types: list[str] | None = None,
        key: str | None = None,
        before: int | None = None,
    ) -> dict[str, Any]:
        """What comes after an offset, or the last before one; of all, of ``types``, or of one ``key``.

        A key is looked for in a stretch of the log, not in all of it: ``since`` says how far back it was looked.
        """
        (log,) = self._logs(module).values()
        wanted = frozenset(types) if types else None
        limit = min(limit, TAIL_MAX)
        if after is not None:
            page = await log.read(after, types=wanted, limit=limit)
            records = [_shown(stored) for stored in page if key in (None, stored.record.key)]
            return {"records": records, "through": page.through}
        ends = await log.ends()
        last = ends.last if before is None else min(ends.last, before - 1)
        first, records = last, list[Any]()
        while len(records) < limit and first >= ends.first:  # backwards, a stretch at a time
            if key is not None and last - first >= LOOK_MAX:
                break
            first, until = first - TAIL_MAX, first
            found = await _between(log, max(first, 0), until, wanted)
            records = [_shown(stored) for stored in found if key in (None, stored.record.key)] + records
        declared = self._runtime.events_declared(module)
        if not records and (strange := sorted((wanted or frozenset[str]()).difference(declared))):
            raise UnknownGroupError(
                f"module {module!r} declares no event {strange[0]!r}, and its log has none",
                f"Known: {', '.join(declared)}.",
            )
        since = records[-limit]["offset"] if len(records) >= limit else max(first + 1, ends.first)
        return {"records": records[-limit:], "through": ends.last, "since": since, "first": ends.first}

    async def _verify(self, module: str | None = None) -> list[dict[str, Any]]:
        return [
            {"module": name, "damage": [_damage(each) for each in await log.verify()]}
            for name, log in self._logs(module).items()
        ]

    async def _repair(self, module: str) -> list[dict[str, Any]]:
        (log,) = self._logs(module).values()
        return [{"module": module, "damage": [_damage(each) for each in await log.set_aside()]}]

    # Groups.

    async def _lag(self, module: str | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for consumer in self._runtime.consumers(module):
            name = consumer.group.partition(".")[0]
            row: dict[str, Any] = {"module": name, "group": consumer.group, "topic": consumer.topic}
            try:
                lag = await consumer.lag()
            except SeamlineError as error:
                row |= {"events": None, "oldest_s": None, "error": error.to_json()}
            else:
                row |= {"events": lag.events, "oldest_s": round(lag.oldest_s, 3)}
            dead = await self._seat(name).dead_letters.counts()
            found.append({**row, **consumer.stats(), "dead": dead.get(consumer.group, 0)})
        return found

    async def _replay(self, module: str, group: str, start: str) -> list[dict[str, Any]]:
        topics = await self._runtime.replay(self._group(module, group), read_start(start))
        return [{"group": self._group(module, group), "topic": topic, "start": start} for topic in topics]

    @staticmethod
    def _group(module: str, group: str) -> str:
        return group if "." in group else f"{module}.{group}"

    # Dead letters.

    def _seat(self, module: str) -> Seat:
        seat = self._runtime.seat(module)
        if seat is None:
            raise UnknownGroupError(
                f"module {module!r} has no handlers of events", "`seamline events lag` lists the groups there are."
            )
        return seat

    async def _dead_list(
        self, module: str | None = None, group: str | None = None, after: int = 0, limit: int = 100
    ) -> list[dict[str, Any]]:
        seats = self._runtime.seats() if module is None else [self._seat(module)]
        found: list[dict[str, Any]] = []
        for seat in seats:
            name = seat.module.name
            wanted = None if group is None else self._group(name, group)
            found += [
                {"module": name, **each} for each in await seat.dead_letters.list(wanted, after=after, limit=limit)
            ]
        return found

    async def _dead_show(self, module: str, number: int) -> dict[str, Any]:
        return await self._seat(module).dead_letters.show(number)

    async def _dead_drop(
        self, module: str, number: int | None = None, group: str | None = None
    ) -> list[dict[str, Any]]:
        letters = self._seat(module).dead_letters
        return [
            {"number": each, "done": await letters.drop(each), "reason": ""}
            for each in await self._numbers(module, number, group)
        ]

    async def _dead_retry(
        self, module: str, number: int | None = None, group: str | None = None
    ) -> list[dict[str, Any]]:
        return [await self._retry(module, each) for each in await self._numbers(module, number, group)]

    async def _numbers(self, module: str, number: int | None, group: str | None) -> list[int]:
        if number is not None:
            await self._seat(module).dead_letters.show(number)  # raises if it is not there
            return [number]
        wanted = None if group is None else self._group(module, group)
        return list(await self._seat(module).dead_letters.numbers(wanted))

    async def _retry(self, module: str, number: int) -> dict[str, Any]:
        """One attempt, at once. Its effect commits with the end of the dead letter."""
        letters = self._seat(module).dead_letters
        group, delivery = await letters.delivery(number)
        consumer = self._consumer(group, delivery.topic, delivery.record.type)
        if not await letters.claim(number):
            return {"number": number, "done": False, "reason": "it is being retried now"}

        async def settle(connection: AsyncConnection | None) -> None:
            if not await (letters.drop(number) if connection is None else letters.settle(connection, number)):
                raise HandledElsewhereError(number)

        try:
            parcel = consumer.parcel(delivery)
            if isinstance(parcel.event, EventDecodeError):
                raise parcel.event  # noqa: TRY301  # one place says what becomes of a failure
            await consumer.handle([parcel], settle)
        except HandledElsewhereError:
            return {"number": number, "done": False, "reason": "it was retried or dropped meanwhile"}
        except Exception as error:
            await letters.failed_again(number, error)
            return {"number": number, "done": False, "reason": f"{type(error).__name__}: {error}"}
        await letters.drop(number)  # where the handler's filter no longer lets it through, nothing has
        return {"number": number, "done": True, "reason": ""}

    def _consumer(self, group: str, topic: str, event_type: str) -> Consumer:
        for consumer in self._runtime.consumers():
            if consumer.group == group and consumer.topic == topic and event_type in consumer.handlings:
                return consumer
        raise UnknownGroupError(
            f"nothing in the group {group!r} handles {event_type!r} of {topic!r} any more",
            "Bring the handler back, or drop the dead letter.",
        )


async def _between(log: Log, after: int, until: int, types: frozenset[str] | None) -> list[Stored]:
    """All there are. Raises DamagedLogError where one of them cannot be read: a page ends before it."""
    found: list[Stored] = []
    while after < until:
        page = await log.read(after, types=types, limit=TAIL_MAX)
        found += [stored for stored in page if stored.offset <= until]
        if page.through <= after:
            break
        after = page.through
    return found


def _shown(stored: Stored) -> dict[str, Any]:
    record = stored.record
    return {
        "offset": stored.offset,
        "partition": stored.partition,
        "id": record.id,
        "type": record.type,
        "version": record.version,
        "key": record.key,
        "time": datetime.fromtimestamp(record.time_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        "trace": record.trace,
        "headers": {name: value for name, value in record.headers.items() if name != SUBJECT},
        "data": record.data.decode(errors="backslashreplace"),
    }


def _damage(damage: Damage) -> dict[str, Any]:
    return {"first": damage.first, "last": damage.last, "fact": damage.fact}
