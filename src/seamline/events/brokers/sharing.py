"""A transport over any broker that can do what :class:`~.partitioned.PartitionedLog` says."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from seamline.events.brokers.partitioned import ORDER, REDELIVERY, REPLAY, PartitionedLog, Position
from seamline.events.brokers.subscription import GroupSubscription
from seamline.events.errors import EventsError, UnknownGroupError
from seamline.events.record import Record, partition_of
from seamline.events.transport import Promises
from seamline.kernel.clock import Clock
from seamline.module.module import Start

if TYPE_CHECKING:
    from seamline.events.leases import Leases


class PartitionedTransport:
    """See :class:`seamline.events.transport.Transport`."""

    relayed = True

    def __init__(
        self, log: PartitionedLog, *, name: str, partitions: int, leases: Callable[[str], Leases], clock: Clock
    ) -> None:
        self._log = log
        self._partitions = partitions
        self._leases = leases
        self._clock = clock
        self._publishing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._subscriptions: set[GroupSubscription] = set()
        self.promises = Promises(
            name=name, durable_when="not connected yet", order=ORDER, redelivery=REDELIVERY, replay=REPLAY
        )

    async def start(self) -> None:
        self.promises = await self._log.connect()

    async def publish(self, topic: str, records: Sequence[Record]) -> None:
        if not records:
            return
        rows = [(partition_of(record, self._partitions), record) for record in records]
        async with self._publishing[topic]:
            await self._log.append(topic, rows)

    async def subscribe(self, topic: str, group: str, types: frozenset[str], start: Start) -> GroupSubscription:
        known = await self._log.places(topic, group)
        if any(number >= self._partitions for number in known):
            raise EventsError(
                f"{group!r} has read {topic!r} in more than the {self._partitions} partitions that there are to be",
                "Set [events] partitions to what it was: what is in the others would never be read",
            )
        if len(known) < self._partitions:
            places = await self._resolved(topic, start)
            await self._log.begin(topic, group, places, over=False)
        name = f"{group}@{topic}"
        share = await self._leases(group.partition(".")[0]).join(name, self._partitions)
        subscription = GroupSubscription(
            self._log, topic, group, types, share, lease=name, clock=self._clock, closed=self._subscriptions.discard
        )
        self._subscriptions.add(subscription)
        subscription.begin()
        return subscription

    async def seek(self, topic: str, group: str, start: Start) -> None:
        if not await self._log.places(topic, group):
            raise UnknownGroupError(
                f"nobody has ever subscribed to {topic!r} as {group!r}",
                "Write the group as <module>.<handler>; `seamline events` lists those there are",
            )
        await self._log.begin(topic, group, await self._resolved(topic, start), over=True)

    async def _resolved(self, topic: str, start: Start) -> dict[int, bytes]:
        starts = await self._log.resolve(topic, start)
        return {number: Position(after).encode() for number, after in starts.items()}

    async def close(self) -> None:
        for subscription in list(self._subscriptions):
            await subscription.close()
        await self._log.close()
