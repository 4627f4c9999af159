"""FastStream apps take part: their subscribers hear of events, and what their publishers say becomes events.

The module that is named stands for the FastStream app: its process runs the FastStream broker, events come to it by a
consumer group of its own, and what comes from the app is published as events that the module's contract declares::

    from faststream.nats import NatsBroker
    from seamline.events.bridges.faststream import FastStreamBridge

    broker = NatsBroker("nats://127.0.0.1:4222")
    billing = Module("billing")
    bridge = FastStreamBridge(billing, broker, app="shop")
    bridge.send(OrderPlaced, broker.publisher("orders.placed"))
    bridge.receive(InvoicePaid, broker.subscriber("invoices.paid"))


    @broker.subscriber("orders.placed")  # as it was, here or in another process
    async def invoice(order: OrderPlaced) -> None:
        await broker.publish({"order_id": order.order_id}, "invoices.paid")

Messages are CloudEvents 1.0 in binary mode: the body is the event's fields as JSON, its id, source, type, time and key
are headers. Both directions are at least once, as far as the subscriber's acknowledgements go. A message with the
headers of a CloudEvent that is delivered again becomes no second event.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol, TypeVar

import msgspec
from faststream import Context, StreamMessage

from seamline.events.cloudevents import from_headers, from_kafka, to_headers, to_kafka
from seamline.events.codec import decode_event, encode_event
from seamline.events.context import EventContext
from seamline.events.errors import EventDecodeError
from seamline.events.events import Events
from seamline.events.inbox import HandledElsewhereError, Inbox
from seamline.events.record import Record
from seamline.events.tables import METADATA
from seamline.events.transport import Delivery
from seamline.kernel.clock import Clock
from seamline.kernel.store import Database
from seamline.module.module import Module
from seamline.module.values import Event

E = TypeVar("E", bound=Event)


class _Broker(Protocol):
    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class _Publisher(Protocol):
    async def publish(self, message: Any, /, *, headers: dict[str, str], **options: Any) -> Any: ...


_Subscriber = Callable[[Callable[..., Awaitable[None]]], Any]


class FastStreamBridge:
    """Ties a FastStream broker to a module, which runs it. Any of FastStream's brokers does.

    Args:
        module: stands for the FastStream app; it has a database.
        broker: a FastStream broker, as ``NatsBroker``; with a TestBroker around it in tests.
        app: the application's name, in the messages' source and type.
    """

    def __init__(self, module: Module, broker: _Broker, *, app: str) -> None:
        self._module, self._app = module, app
        self._kafka = type(broker).__module__.startswith(("faststream.kafka", "faststream.confluent"))
        self._inside: tuple[Events, Database, Inbox] | None = None

        async def start(events: Events, database: Database, clock: Clock) -> None:
            await database.ensure(METADATA)
            self._inside = events, database, Inbox(database, clock)
            await broker.start()

        async def stop() -> None:
            await broker.stop()

        module.startup(start)
        module.shutdown(stop)

    def send(self, event: type[Event], publisher: _Publisher, *, group: str = "") -> None:
        """Publish every ``event`` to FastStream, in order within its key.

        Args:
            group: the consumer group's name in the module; ``faststream_<event's class>`` when empty.
        """

        async def forward(event_: Event, context: EventContext) -> None:
            record = self._record(event_, context)
            keyed = {"key": record.key.encode() or None} if self._kafka else {}
            await publisher.publish(msgspec.json.decode(record.data), headers=self._headers(record), **keyed)

        self._module.on(event, group=group or f"faststream_{event.__name__}", outside=True)(forward)

    def receive(self, event: type[Event], subscriber: _Subscriber) -> None:
        """Publish what the subscriber hears as ``event``, which the module's contract declares.

        What does not fit the event's fields raises EventDecodeError, and fares as the subscriber's ``ack_policy`` says.
        """

        async def take(message: Annotated[StreamMessage[Any], Context("message")]) -> None:
            await self._take(event, message)

        subscriber(take)

    async def _take(self, event: type[E], message: StreamMessage[Any]) -> None:
        if self._inside is None:
            raise EventDecodeError(
                f"a message for module {self._module.name!r} came before the module was started",
                "Let the module run the FastStream broker; do not start it elsewhere.",
            )
        events, database, inbox = self._inside
        record, told = self._heard(event, message)
        found = decode_event(event, record)
        if not told:
            await events.publish(found, key=record.key or None)
            return
        try:
            async with database.transaction() as tx:
                await inbox.settle(tx, f"faststream.{event.__name__}", [Delivery(record, "faststream", 0, "")])
                await events.publish(found, key=record.key or None)
        except HandledElsewhereError:
            return

    def _heard(self, event: type[Event], message: StreamMessage[Any]) -> tuple[Record, bool]:
        """The message as a record, and whether it said who it is."""
        headers = {name.lower(): str(value) for name, value in message.headers.items()}
        if "ce-specversion" in headers:
            record = from_headers(headers, message.body)
        elif "ce_specversion" in headers:
            record = from_kafka([(name, value.encode()) for name, value in headers.items()], message.body)
        else:
            plain = Record(
                id=message.message_id, source="faststream", type=event.__name__, data=message.body, time_ms=0,
                version=event.event_version,
            )  # fmt: skip
            return plain, False
        return record, True

    def _record(self, event: Event, context: EventContext) -> Record:
        return Record(
            id=context.id,
            source=context.source,
            type=type(event).__name__,
            data=encode_event(event),
            time_ms=int(context.time.timestamp() * 1000),
            key=context.key,
            version=type(event).event_version,
            headers=dict(context.headers),
        )

    def _headers(self, record: Record) -> dict[str, str]:
        if self._kafka:
            return {name: value.decode() for name, value in to_kafka(record, self._app)}
        return to_headers(record, self._app)
