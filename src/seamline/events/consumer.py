"""One consumer group on one topic: subscribes, and subscribes again; what its handlers need to work and to commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from seamline.events.codec import decode_event
from seamline.events.dead_letters import DeadLetters
from seamline.events.deaths import Deaths
from seamline.events.errors import EventDecodeError, EventsError
from seamline.events.handling import Handling, Settle
from seamline.events.inbox import Inbox
from seamline.events.lanes import Lanes, Parcel
from seamline.events.positions import Positions, behind_broker
from seamline.events.session import Session
from seamline.events.transport import Delivery, Lag, Transport
from seamline.kernel.clock import now_ms
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.store import Database, StoreError
from seamline.module.errors import CallError

if TYPE_CHECKING:
    from seamline.kernel.clock import Clock
    from seamline.module.module import Start

_log = logging.getLogger("seamline.events")

CAREFUL_TIMES = 2
"""How many times what was at work at once is handled with care after a death: others may have finished meanwhile."""
PAUSE_S, PAUSE_S_MAX = 0.1, 5.0


class Consumer:
    """Hands the events of one topic to the handlers of one group.

    Args:
        callees: returns when what the handlers call can be reached, or was waited for long enough.
    """

    def __init__(
        self,
        topic: str,
        handlings: Sequence[Handling],
        transport: Transport,
        database: Database,
        inbox: Inbox,
        dead_letters: DeadLetters,
        clock: Clock,
        partitions: int,
        deaths: Deaths,
        callees: Callable[[], Awaitable[None]],
    ) -> None:
        self._partitions = partitions
        self._callees = callees
        self.deaths = deaths
        self.careful = 0
        """So many events may have been at work when a process died, and are handled one by one."""
        self.topic = topic
        self.group = handlings[0].group
        self.handlings: Mapping[str, Handling] = {each.handler.event.__name__: each for each in handlings}
        self.handled = 0
        self.failed = 0
        self.dead = 0
        self._transport = transport
        self.database = database
        self.inbox = inbox
        self.dead_letters = dead_letters
        self.clock = clock
        self.concurrency = max(each.handler.concurrency for each in handlings)
        self.batch = handlings[0].handler.batch
        self.batch_wait_s = handlings[0].handler.batch_wait_s
        self._start: Start = handlings[0].handler.start
        self._owner = TaskOwner(self.group)
        self._session: Session | None = None
        self._stopping = False
        self._main: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._main = self._owner.spawn(self._run(), name=f"consume {self.topic}")

    def _positions(self, topic: str) -> Positions:
        return Positions(self.database, self.group, topic, self._partitions)

    async def _run(self) -> None:
        pause_s, trouble = PAUSE_S, ""
        marked = False
        await self._callees()
        while not self._stopping:
            try:
                if not marked and await self.deaths.begin():
                    self.careful = CAREFUL_TIMES * max(self.concurrency, self.batch)
                marked = True
                subscription = await self._transport.subscribe(
                    self.topic, self.group, frozenset(self.handlings), self._start
                )
                session = self._session = Session(self, subscription)
                try:
                    pause_s, trouble = PAUSE_S, ""
                    await session.run()
                finally:
                    self._session = None
                    await session.close()
            except Exception as error:  # a consumer that gave up would be missed by nobody until much later
                if str(error) != trouble:
                    trouble = str(error)
                    known = isinstance(error, EventsError | CallError | StoreError)
                    _log.warning("%s cannot consume %s now, and tries again: %s", self.group, self.topic, error,
                                 exc_info=None if known else error)  # fmt: skip
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, PAUSE_S_MAX)

    async def known(self) -> tuple[int, Sequence[int]]:
        """Since when the group is replayed (ms; 0 for never), and its positions in the log from before there was a
        broker, if they still say what it has handled."""
        positions = self._positions(self.topic)
        moved = await self._positions(behind_broker(self.topic)).replayed_ms()
        before = await positions.all() if self._transport.relayed and not moved else ()
        return await positions.replayed_ms(), before

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing more, and finish what is at work. False when time ran out."""
        self._stopping = True
        finished = await self._session.finish(timeout_s) if self._session is not None else True
        await self.stop()
        return finished

    async def stop(self) -> None:
        """End at once; what is at work is handed out again."""
        self._stopping = True
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main])
        await self._owner.stop()
        if self._main is not None:
            try:
                await self.deaths.end()
            except StoreError as error:  # then we are taken for dead, which costs the next one some care
                _log.warning("%s could not take its mark away: %s", self.group, error)

    @property
    def subscribed(self) -> bool:
        return self._session is not None

    def now_ms(self) -> int:
        return now_ms(self.clock)

    async def lag(self) -> Lag:
        """Raises CallError or EventsError where it cannot be known now."""
        if self._session is None:
            raise EventsError(
                f"{self.group} has no subscription to {self.topic} now", "It tries again by itself; the log says why."
            )
        return await self._session.subscription.lag()

    def stats(self) -> dict[str, int]:
        session = self._session
        lanes = session.lanes if session is not None else Lanes()
        return {
            "handled": self.handled,
            "failed": self.failed,
            "dead": self.dead,
            "waiting": lanes.waiting,
            "resting": lanes.resting,
            "working": lanes.working,
        }

    def parcel(self, delivery: Delivery) -> Parcel:
        """A delivery with its event, or with what is wrong with it."""
        record = delivery.record
        try:
            return Parcel(delivery, decode_event(self.handlings[record.type].handler.event, record))
        except EventDecodeError as error:
            return Parcel(delivery, error)

    async def handle(self, parcels: list[Parcel], settle: Settle, replayed_ms: int = 0) -> None:
        """One attempt."""
        record = parcels[0].delivery.record
        wanted = self.handlings[record.type].wanted(parcels)
        if wanted:
            await self.handlings[record.type].run(wanted, settle, replayed=record.time_ms <= replayed_ms)
