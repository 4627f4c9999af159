"""From a module's own log to the broker: in order, in batches, by one process at a time."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import insert, select, update

from seamline.events.errors import EventsError, EventTooLargeError, LostLeaseError
from seamline.events.fences import check
from seamline.events.inbox import HandledElsewhereError
from seamline.events.record import LOG_OFFSET, Record
from seamline.events.tables import relays
from seamline.events.transport import Delivery
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.store import StoreError

if TYPE_CHECKING:
    from seamline.events.dead_letters import DeadLetters
    from seamline.events.inbox import Inbox
    from seamline.events.leases import Leases
    from seamline.events.log import Log, Stored
    from seamline.events.shares import Share
    from seamline.events.transport import Fence, Transport
    from seamline.kernel.store import Database

_log = logging.getLogger("seamline.events")

RELAYED_MAX = 512
PAUSE_S, PAUSE_S_MAX = 0.1, 5.0


def _with_offset(stored: Stored) -> Record:
    """Who has handled it when it was read from the log itself, can tell by its offset."""
    headers = {**stored.record.headers, LOG_OFFSET: str(stored.offset)}
    return msgspec.structs.replace(stored.record, headers=headers)


class Relay:
    """Of one module. After a crash it goes on where the last acknowledged batch ended; a batch that was under way is
    published twice at the worst, and the consumers' inboxes take that out."""

    def __init__(
        self, topic: str, log: Log, database: Database, leases: Leases, inbox: Inbox, dead_letters: DeadLetters,
        transport: Transport,
    ) -> None:  # fmt: skip
        self.topic = topic
        self.name = f"relay/{topic}"
        self.relayed = 0
        self._log = log
        self._database = database
        self._leases = leases
        self._inbox = inbox
        self._dead_letters = dead_letters
        self._transport = transport
        self._owner = TaskOwner(f"relay of {topic}")
        self._main: asyncio.Task[None] | None = None
        self._share: Share | None = None

    def begin(self) -> None:
        self._main = self._owner.spawn(self._run(), name="relay")

    async def stop(self) -> None:
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main])
        await self._owner.stop()
        if self._share is not None:
            share, self._share = self._share, None
            await share.close()

    async def _run(self) -> None:
        self._share = share = await self._leases.join(self.name, 1)
        pause_s, trouble = PAUSE_S, ""
        while True:
            fence = share.fence(0)
            if fence is None:
                share.changed.clear()
                if share.fence(0) is None:
                    await share.changed.wait()
                continue
            try:
                await self._forward(fence, share)
                pause_s, trouble = PAUSE_S, ""
                continue
            except LostLeaseError:
                pass
            except (EventsError, StoreError) as error:
                if str(error) != trouble:
                    trouble = str(error)
                    _log.warning("the events of %s wait for the broker: %s", self.topic, error)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_S_MAX)

    async def _forward(self, fence: Fence, share: Share) -> None:
        """Everything that comes, while the lease is ours."""
        position = await self._position()
        while share.fence(0) == fence:
            seen = self._log.generation
            page = await self._log.read(position, limit=RELAYED_MAX)
            if page:
                await self._publish([_with_offset(stored) for stored in page], fence)
            if page.through > position:
                position = page.through
                await self._remember(position, fence)
            if not page:
                await self._wait(seen, share)

    async def _publish(self, records: list[Record], fence: Fence) -> None:
        try:
            await self._transport.publish(self.topic, records)
        except EventTooLargeError as error:
            if len(records) > 1:  # none of them was published
                for record in records:
                    await self._publish([record], fence)
            else:
                await self._put_aside(records[0], fence, error)
        else:
            self.relayed += len(records)

    async def _put_aside(self, record: Record, fence: Fence, error: EventTooLargeError) -> None:
        """What the broker never takes must not hold up what it would."""
        delivery = Delivery(record, self.topic, 0, record.id, fence)
        try:
            async with self._database.transaction() as connection:
                await self._inbox.settle(connection, self.name, [delivery])
                await self._dead_letters.add(connection, self.name, delivery, error, attempts=1, first_ms=0)
        except HandledElsewhereError:
            return  # before a crash
        _log.error("an event of %s is with the dead letters: %s", self.topic, error)

    async def _wait(self, seen: int, share: Share) -> None:
        """Until the log has grown or the lease may have gone."""
        share.changed.clear()
        waits = [self._owner.spawn(self._log.changed(seen)), self._owner.spawn(share.changed.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def _position(self) -> int:
        async with self._database.read() as connection:
            found = await connection.execute(select(relays.c.position).where(relays.c.topic == self.topic))
            return found.scalar() or 0

    async def _remember(self, position: int, fence: Fence) -> None:
        async with self._database.transaction() as connection:
            await check(connection, fence)
            mine = relays.c.topic == self.topic
            if (await connection.execute(update(relays).where(mine).values(position=position))).rowcount == 0:
                await connection.execute(insert(relays).values(topic=self.topic, position=position))
