"""A consumer while it has a subscription: fetches, keeps each key in order, retries, and puts aside what is poison."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.errors import DeadlyEventError, EventDecodeError, EventsError, LostLeaseError
from seamline.events.inbox import HandledElsewhereError
from seamline.events.lanes import Lane, Lanes, Parcel
from seamline.events.record import LOG_OFFSET, Record, partition_of
from seamline.events.transport import Delivery, Subscription
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.store import StoreError
from seamline.module.errors import Unavailable

if TYPE_CHECKING:
    from seamline.events.consumer import Consumer

_log = logging.getLogger("seamline.events")

FETCH_MAX = 256
FETCH_WAIT_S = 30.0
READY_MAX = 512
"""Keys with something to do, beyond which nothing is fetched ahead."""
HELD_MAX, HELD_BYTES_MAX = 8_192, 64 * 1024 * 1024
"""Events in memory, most of them behind others of their key, beyond which all keys wait."""
BACKOFF_S_MAX = 30.0
UNSENT_S_MAX = 1.0
"""The longest pause where a callee was not there: it may be so any moment."""
TROUBLED_S = 5.0
"""The pause where the database does not take what became of an event."""


class Session:
    """A consumer while it has a subscription."""

    def __init__(self, consumer: Consumer, subscription: Subscription) -> None:
        self.subscription = subscription
        self.lanes = Lanes()
        self._consumer = consumer
        self._owner = TaskOwner(consumer.group)
        self._workers = 0
        self._claims = -1
        """Of the subscription, when was last asked what is known of the group."""
        self._replayed_ms = 0
        self._handled_before: Sequence[int] = ()
        """How far the group was when it read the log itself, before there was a broker."""
        self._taking = True
        self._not_acknowledged = ""
        """Why; a broker that is away would say so for each event."""
        self._not_sent = ""
        """The last that a handler heard of a callee that was not there."""
        self._changed = asyncio.Event()
        self._batch_timer: asyncio.TimerHandle | None = None
        self._batch_due = False

    async def run(self) -> None:
        """Fetch until cancelled, or until the subscription fails."""
        while self._taking:
            while self._full_up():
                self._changed.clear()
                await self._changed.wait()
            deliveries = await self.subscription.fetch(FETCH_MAX, FETCH_WAIT_S)
            if deliveries:
                await self._sort_in(deliveries)
                self._dispatch()
        await asyncio.Event().wait()  # what is at work goes on until we are cancelled

    def _full_up(self) -> bool:
        lanes = self.lanes
        ready_max = max(READY_MAX, 2 * self._consumer.batch)
        return lanes.ready() >= ready_max or len(lanes) >= HELD_MAX or lanes.held_bytes >= HELD_BYTES_MAX

    async def _sort_in(self, deliveries: Sequence[Delivery]) -> None:
        consumer = self._consumer
        if self._claims != self.subscription.claims:
            self._claims = self.subscription.claims
            self._replayed_ms, self._handled_before = await consumer.known()
        seen = await consumer.inbox.seen(consumer.group, [delivery.record for delivery in deliveries])
        known: list[Delivery] = []
        for delivery in deliveries:
            record = delivery.record
            if (record.source, record.id) in seen or record.type not in consumer.handlings or self._is_old(record):
                known.append(delivery)
            else:
                self.lanes.add(consumer.parcel(delivery))
        if known:
            await self.subscription.acknowledge(known)

    def _is_old(self, record: Record) -> bool:
        """Whether it was handled before there was a broker."""
        before, offset = self._handled_before, record.headers.get(LOG_OFFSET)
        return bool(before) and offset is not None and int(offset) <= before[partition_of(record, len(before))]

    async def finish(self, timeout_s: float) -> bool:
        self._taking = False
        self.lanes.close()
        try:
            async with asyncio.timeout(timeout_s):
                while self.lanes.working:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        if self._batch_timer is not None:
            self._batch_timer.cancel()
        await self._owner.stop()
        await self.subscription.close()

    # Work.

    def _dispatch(self) -> None:
        """Give ready lanes to workers, as many as there may be."""
        self._changed.set()
        concurrency = 1 if self._consumer.careful else self._consumer.concurrency
        wanted = min(self.lanes.ready(), concurrency - self._workers)
        for _ in range(1 if self._consumer.batch and wanted > 0 else wanted):
            self._workers += 1
            self._owner.spawn(self._work(), name="handle")

    async def _work(self) -> None:
        try:
            while self._full() and (parcels := self.lanes.take(self._batch())):
                await self._attempt(parcels)
        finally:
            self._workers -= 1
            self._changed.set()

    def _batch(self) -> int:
        return 1 if self._consumer.careful else self._consumer.batch or 1

    def _full(self) -> bool:
        """Whether a batch is complete, or has waited long enough; single events never wait."""
        consumer = self._consumer
        if not consumer.batch or self._batch_due or self.lanes.waiting >= consumer.batch:
            self._batch_due = False
            return True
        if self._batch_timer is None and self.lanes.ready():
            self._batch_timer = asyncio.get_running_loop().call_later(consumer.batch_wait_s, self._batch_waited)
        return False

    def _batch_waited(self) -> None:
        self._batch_timer, self._batch_due = None, True
        self._dispatch()

    async def _attempt(self, parcels: list[Parcel]) -> None:
        try:
            error = await (self._with_care(parcels[0]) if self._consumer.careful else self._outcome(parcels))
            if error is None:
                self._consumer.handled += len(parcels)
                self.lanes.free(parcels)
                await self._acknowledge(parcels)
            else:
                await self._failed(parcels, error)
        except LostLeaseError:
            self.lanes.free(parcels)  # who has the partition now is handed them
        except (EventsError, StoreError) as error:
            _log.warning("%s: what became of an event could not be noted: %s", self._consumer.group, error)
            self._rest(self.lanes.put_back(parcels, rest=True), TROUBLED_S)
        finally:
            self._changed.set()

    async def _with_care(self, parcel: Parcel) -> BaseException | None:
        """The outcome, where a process has died and this may be why."""
        consumer, record = self._consumer, parcel.delivery.record
        died = await consumer.deaths.note(record)
        if died >= consumer.handlings[record.type].handler.attempts:
            parcel.attempts = died - 1  # the failure that this is comes on top
            error: BaseException | None = DeadlyEventError(
                f"{died} times the process died while {consumer.group} handled it",
                "Look at what the system says of these deaths (memory, a crash in native code), then retry it.",
                place=consumer.group,
            )
        else:
            error = await self._outcome([parcel])
        await consumer.deaths.clear(record)
        consumer.careful -= 1
        if not consumer.careful:
            self._dispatch()  # all hands again
        return error

    async def _outcome(self, parcels: list[Parcel]) -> BaseException | None:
        """None if the effect is there; else why it is not. Raises LostLeaseError."""
        misfit = parcels[0].event
        if isinstance(misfit, EventDecodeError):
            return misfit
        consumer = self._consumer
        records = [parcel.delivery.record for parcel in parcels]

        async def settle(connection: AsyncConnection | None) -> None:
            again = [record for record in records if record.time_ms <= replayed_ms]
            if again and connection is None:
                async with consumer.database.transaction() as own:
                    await settle(own)
                return
            await consumer.inbox.settle(connection, consumer.group, [parcel.delivery for parcel in parcels])
            if again and connection is not None:
                await consumer.dead_letters.forget(connection, consumer.group, again)

        replayed_ms = max(self._replayed_ms, self.subscription.replayed_ms)
        try:
            if parcels[0].attempts and await consumer.inbox.seen(consumer.group, records):
                return None
            await consumer.handle(parcels, settle, replayed_ms)
        except HandledElsewhereError:
            return None
        except LostLeaseError:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return error  # the handler let slip that something of its own was cancelled
        except Exception as error:
            return error
        return None

    async def _failed(self, parcels: list[Parcel], error: BaseException) -> None:
        """Try again later, or put aside."""
        consumer = self._consumer
        if isinstance(error, Unavailable) and not error.started:
            self._wait_for_callee(parcels, error)
            return
        consumer.failed += 1
        if len(parcels) > 1:
            for parcel in parcels:
                parcel.alone = True
            _log.warning("%s failed on a batch of %d, which is now tried one by one", consumer.group, len(parcels),
                         exc_info=error)  # fmt: skip
            self.lanes.put_back(parcels, rest=False)
            self._dispatch()
            return
        parcel = parcels[0]
        handler = consumer.handlings[parcel.delivery.record.type].handler
        parcel.attempts += 1
        parcel.first_ms = parcel.first_ms or consumer.now_ms()
        hopeless = isinstance(error, EventsError) and error.hopeless
        if hopeless or parcel.attempts >= handler.attempts:
            await self._put_aside(parcel, error)
            return
        if parcel.attempts == 1:
            record = parcel.delivery.record
            _log.warning("%s failed on %s %s, and will try again", consumer.group, record.type, record.id,
                         exc_info=error)  # fmt: skip
        pause_s = min(handler.backoff_s * 2 ** (parcel.attempts - 1), BACKOFF_S_MAX)
        if isinstance(error, EventsError):
            pause_s = max(pause_s, error.retry_after_s)
        self._rest(self.lanes.put_back(parcels, rest=True), pause_s)

    def _wait_for_callee(self, parcels: list[Parcel], error: Unavailable) -> None:
        """What was never sent anywhere says nothing of the event: it is tried until its callee is there."""
        consumer = self._consumer
        if str(error) != self._not_sent:
            self._not_sent = str(error)
            _log.warning("%s waits for what it calls: %s", consumer.group, error)
        backoff_s = consumer.handlings[parcels[0].delivery.record.type].handler.backoff_s
        for parcel in parcels:
            parcel.unsent += 1
        pause_s = min(backoff_s * 2 ** min(parcels[0].unsent - 1, 10), UNSENT_S_MAX)
        self._rest(self.lanes.put_back(parcels, rest=True), pause_s)

    def _rest(self, lanes: list[Lane], pause_s: float) -> None:
        for lane in lanes:
            self._owner.spawn(self._wake(lane, pause_s), name="back off")

    async def _wake(self, lane: Lane, pause_s: float) -> None:
        await self._consumer.clock.sleep(pause_s)
        self.lanes.wake(lane)
        self._dispatch()

    async def _put_aside(self, parcel: Parcel, error: BaseException) -> None:
        consumer, delivery = self._consumer, parcel.delivery
        try:
            async with consumer.database.transaction() as connection:
                await consumer.inbox.settle(connection, consumer.group, [delivery])
                await consumer.dead_letters.add(
                    connection, consumer.group, delivery, error, attempts=parcel.attempts, first_ms=parcel.first_ms
                )
        except HandledElsewhereError:
            pass
        else:
            consumer.dead += 1
            consumer.handlings[delivery.record.type].dead(delivery.record, error)
            _log.error(
                "%s gives up on %s %s after %d attempts; it is with the dead letters",
                consumer.group, delivery.record.type, delivery.record.id, parcel.attempts, exc_info=error,
            )  # fmt: skip
        self.lanes.free([parcel])
        await self._acknowledge([parcel])

    async def _acknowledge(self, parcels: list[Parcel]) -> None:
        try:
            await self.subscription.acknowledge([parcel.delivery for parcel in parcels])
        except EventsError as error:  # they come again, and the inbox knows them
            if str(error) != self._not_acknowledged:
                self._not_acknowledged = str(error)
                _log.warning("%s could not acknowledge: %s", self._consumer.group, error)
        else:
            self._not_acknowledged = ""
