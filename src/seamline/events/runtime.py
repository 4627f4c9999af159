"""Events in one process: the logs of the modules that publish here, and the consumers of those that listen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from seamline.events.consumer import Consumer
from seamline.events.dead_letters import DeadLetters
from seamline.events.deaths import Deaths
from seamline.events.embedded import EmbeddedTransport, Home
from seamline.events.errors import BrokerError, UnknownGroupError
from seamline.events.events import Events
from seamline.events.fences import metadata as lease_tables
from seamline.events.fences import revoke
from seamline.events.handling import Handling
from seamline.events.inbox import Inbox
from seamline.events.leases import Leases
from seamline.events.log import Log, open_log
from seamline.events.positions import Bookmarks, Positions, behind_broker
from seamline.events.reading import LogService
from seamline.events.relay import Relay
from seamline.events.tables import METADATA
from seamline.kernel.clock import now_ms
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.signal.measures import Measure
from seamline.module.errors import EventError
from seamline.module.values import Event

if TYPE_CHECKING:
    from seamline.events.transport import Transport
    from seamline.events.webhooks.egress import WebhookSender
    from seamline.kernel.clock import Clock
    from seamline.kernel.settings import EventsSettings
    from seamline.kernel.signal.trace import Tracer
    from seamline.kernel.store import Database
    from seamline.module.module import EventHandler, Module, Start
    from seamline.module.port import CallPort
    from seamline.module.principal import Proofs
    from seamline.module.wiring import Wiring

_log = logging.getLogger("seamline.events")

BROKER_AWAY_S, BROKER_AWAY_S_MAX = 0.25, 5.0
"""The pauses between attempts to reach a broker that was away at the start."""

CALLEES_WAIT_S = 30.0
"""What a module calls is waited for so long; its consumers then begin without, since not all of them may need it."""
UPKEEP_S = 300.0
REPLAY_DRAIN_S = 10.0


class Seat(NamedTuple):
    """A module hosted here, and what it has of events."""

    module: Module
    database: Database
    wiring: Wiring
    home: Home
    dead_letters: DeadLetters


class EventsRuntime:
    """Events of the modules that one process hosts.

    Args:
        app: the application's name.
        port: makes the stubs by which logs of other modules are read.
        owners: every event of the application, and the module that declares it.
        announce: called with a module's name when its log has grown, for the other processes that host it.
        owner: this process, as :func:`~seamline.kernel.owner.process_owner` names it.
        reachable: returns when every module that the named one calls can be reached. Consumers begin then.
        proofs: keeps with each event on whose behalf it was published.
        audit: writes a line about a call that leaves the application and is refused.
    """

    def __init__(
        self,
        app: str,
        settings: EventsSettings,
        clock: Clock,
        port: CallPort,
        tracer: Tracer,
        owners: Mapping[type[Event], str],
        announce: Callable[[str], None],
        owner: str,
        *,
        reachable: Callable[[str], Awaitable[None]] | None = None,
        proofs: Proofs | None = None,
        audit: Callable[..., object] | None = None,
    ) -> None:
        self.app = app
        self.settings = settings
        self.logs: dict[str, Log] = {}
        """The logs of modules that are hosted here and declare events."""
        self._clock = clock
        self._port = port
        self._tracer = tracer
        self._owners = owners
        self._announce = announce
        self._owner = owner
        self._reachable = reachable
        self._proofs = proofs
        self._audit = audit
        self._seats: dict[str, Seat] = {}
        self._events: dict[str, Events] = {}
        self._services: dict[str, LogService] = {}
        self._handlings: dict[tuple[str, str], list[Handling]] = {}
        self._consumers: dict[tuple[str, str], Consumer] = {}
        self._relays: dict[str, Relay] = {}
        self._senders: list[WebhookSender] = []
        self._announcing: set[str] = set()
        self._compacted: dict[str, int] = {}
        """How far each log went when it was compacted last."""
        self._tasks = TaskOwner("events")
        self._started = False
        self.transport: Transport = self._make_transport()

    def _make_transport(self) -> Transport:
        if self.settings.broker:
            # Each broker's client is heavy.
            from seamline.events.brokers import open_transport

            return open_transport(
                self.settings.broker, app=self.app, settings=self.settings,
                leases=lambda module: self._seats[module].home.leases, clock=self._clock,
            )  # fmt: skip
        return EmbeddedTransport(
            self._port, self._clock, self.settings.partitions, lambda module: self._seats[module].home
        )

    # What there is.

    def add(self, module: Module, database: Database, wiring: Wiring) -> None:
        """Host the events of a module. Its database is open when :meth:`open` is called."""
        leases = Leases(database, self._owner, self._clock)
        home = Home(database, leases, Inbox(database, self._clock), Bookmarks(database))
        seat = self._seats[module.name] = Seat(module, database, wiring, home, DeadLetters(database, self._clock))
        if module.name in self._owners.values():
            self.logs[module.name] = log = open_log(
                database, self.settings, self._clock, lambda: self._wrote(module.name)
            )
            self._services[module.name] = LogService(log, self._clock)
        log = self.logs.get(module.name)
        self._events[module.name] = Events(
            module.name, database, log, self._clock, self._owners, self._proofs, self._tracer
        )
        for handler in module.event_handlers:
            self._listen(seat, handler)
        if any(webhook.module == module.name for webhook in self.settings.webhooks):
            self._send_webhooks(seat)

    def _send_webhooks(self, seat: Seat) -> None:
        # TLS and an HTTP client, which few need.
        from seamline.events.webhooks.egress import open_senders, webhook_handlers

        for sender in open_senders(self.settings.webhooks, self.app, seat.module.name, self._clock, audit=self._audit):
            self._senders.append(sender)
            for handler in webhook_handlers(sender, self._owners):
                self._listen(seat, handler)

    def listen(self, module: str, handler: EventHandler) -> None:
        """Let a room above hear of an event in the name of a module that was added. Before :meth:`start`."""
        self._listen(self._seats[module], handler)

    def _listen(self, seat: Seat, handler: EventHandler) -> None:
        module = seat.module
        topic = self._owners.get(handler.event)
        if topic is None:
            raise EventError(
                f"module {module.name!r} handles {handler.event.__name__}, which no module of the application declares",
                "Declare it in the package of the module that publishes it, and name that module in `modules`.",
                place=module.place,
            )
        handling = Handling(module, handler, seat.database, seat.wiring, self._tracer, self._proofs)
        others = self._handlings.setdefault((handling.group, topic), [])
        if any(each.handler.batch or handler.batch for each in others):
            raise EventError(
                f"the group {handling.group!r} has several handlers for events of {topic!r}, and one takes batches",
                "Give the batch handler a group of its own: `@module.on(..., group=...)`.",
                place=module.place,
            )
        others.append(handling)

    def events_of(self, module: str) -> Events:
        """What the module publishes with."""
        return self._events[module]

    def log_service(self, module: str) -> LogService:
        """What serves :func:`~seamline.events.reading.log_contract` of a module in ``logs``."""
        return self._services[module]

    def consumers(self, module: str | None = None) -> list[Consumer]:
        """Those at work here, of one module or of all."""
        return [each for each in self._consumers.values() if module is None or each.group.partition(".")[0] == module]

    def seat(self, module: str) -> Seat | None:
        return self._seats.get(module)

    def seats(self) -> list[Seat]:
        return list(self._seats.values())

    def events_declared(self, module: str) -> list[str]:
        """The names of a module's events."""
        return sorted(event.__name__ for event, owner in self._owners.items() if owner == module)

    # Life.

    async def open(self) -> None:
        """Make tables and open the logs: from now on modules can publish."""
        for seat in self._seats.values():
            await seat.database.ensure(METADATA)
            await seat.database.ensure(lease_tables)
        for log in self.logs.values():
            await log.start()

    async def start(self) -> None:
        """Begin to consume, and to relay; with a broker that does not answer, as soon as it does.

        Raises EventsError if it answers and cannot be used.
        """
        for handlings in self._handlings.values():
            for handling in handlings:
                await handling.prepare()
        self._tasks.spawn(self._keep(), name="upkeep")
        self._started = True
        try:
            await self.transport.start()
        except BrokerError as error:
            # A process that is started again while the broker is away must come up and serve.
            _log.warning("%s Events wait in their modules' logs until it answers.", error)
            self._tasks.spawn(self._begin_later(), name="wait for the broker")
        else:
            self._begin()

    async def _begin_later(self) -> None:
        pause_s = BROKER_AWAY_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, BROKER_AWAY_S_MAX)
            try:
                await self.transport.start()
            except BrokerError:
                continue
            _log.info("the broker answers")
            self._begin()
            return

    def _begin(self) -> None:
        for (_, topic), handlings in self._handlings.items():
            consumer = self._consumer(topic, handlings)
            self._consumers[consumer.group, topic] = consumer
            consumer.begin()
        if self.transport.relayed:
            for topic, log in self.logs.items():
                seat = self._seats[topic]
                database, leases, inbox, _ = seat.home
                self._relays[topic] = Relay(topic, log, database, leases, inbox, seat.dead_letters, self.transport)
                self._relays[topic].begin()

    def _consumer(self, topic: str, handlings: list[Handling]) -> Consumer:
        seat = self._seats[handlings[0].group.partition(".")[0]]
        return Consumer(
            topic, handlings, self.transport, seat.database, seat.home.inbox, seat.dead_letters, self._clock,
            self.settings.partitions, Deaths(seat.database, handlings[0].group, topic, self._owner, self._clock),
            lambda: self._callees(seat.module.name, handlings[0].group),
        )  # fmt: skip

    async def _callees(self, module: str, group: str) -> None:
        if self._reachable is None:
            return
        try:
            async with asyncio.timeout(CALLEES_WAIT_S):
                await self._reachable(module)
        except TimeoutError:
            _log.warning("%s begins, though not everything that %s calls is running", group, module)

    def wake(self, topic: str) -> None:
        """Another process has written to the log of the module ``topic``."""
        log = self.logs.get(topic)
        if log is not None:
            log.poke()

    def _wrote(self, topic: str) -> None:
        """This process has. Many at once are announced once."""
        if topic not in self._announcing:
            self._announcing.add(topic)
            asyncio.get_running_loop().call_soon(self._announce_written, topic)

    def _announce_written(self, topic: str) -> None:
        self._announcing.discard(topic)
        self._announce(topic)

    async def drain(self, timeout_s: float) -> bool:
        """Let readers go elsewhere, take no more events, and finish those at work. False when time ran out."""
        for service in self._services.values():
            service.end()
        finished = await asyncio.gather(*(each.drain(timeout_s) for each in self._consumers.values()))
        return all(finished)

    async def stop(self) -> None:
        """End at once and close what is open; what is at work is handed out again."""
        for service in self._services.values():
            service.end()
        await self._tasks.stop()
        await asyncio.gather(*(each.stop() for each in self._consumers.values()))
        await asyncio.gather(*(each.stop() for each in self._relays.values()))
        await asyncio.gather(*(sender.close() for sender in self._senders))
        await self.transport.close()
        for seat in self._seats.values():
            await seat.home.leases.close()
        for log in self.logs.values():
            await log.close()

    async def _keep(self) -> None:
        """Drop what the settings say may go."""
        while True:
            await asyncio.sleep(UPKEEP_S)
            try:
                await self.keep()
            except Exception:
                _log.exception("old events could not be dropped, which is tried again")

    async def keep(self) -> None:
        """Drop what the settings say may go, now."""
        for topic, log in self.logs.items():
            await log.trim(older_than_s=self.settings.retention_s, bytes_max=self.settings.retention_bytes)
            await self._compact(topic, log)
        for seat in self._seats.values():
            if self.settings.inbox_s:
                await seat.home.inbox.prune(self.settings.inbox_s)

    async def _compact(self, topic: str, log: Log) -> None:
        kinds = [kind.__name__ for kind, owner in self._owners.items() if owner == topic and kind.event_compacted]
        last = (await log.ends()).last if kinds else 0
        if last == self._compacted.get(topic, 0):
            return  # it reads the whole log, which is no use where nothing came
        for kind in kinds:
            await log.compact(kind)
        self._compacted[topic] = last

    async def replay(self, group: str, start: Start) -> list[str]:
        """Hand a group its events again, from ``start`` on, and return the topics.

        Raises:
            UnknownGroupError: no such group is hosted here.
        """
        found = [each for each in self._consumers.values() if each.group == group]
        if not found:
            raise UnknownGroupError(
                f"there is no consumer group {group!r} here", "`seamline events lag` lists the groups there are."
            )
        for consumer in found:
            if not self.transport.relayed:
                await self.transport.seek(consumer.topic, group, start)
                continue
            await consumer.drain(REPLAY_DRAIN_S)
            try:
                await self._replay_from_broker(consumer.topic, group, start)
            finally:
                again = self._consumer(consumer.topic, list(consumer.handlings.values()))
                self._consumers[group, consumer.topic] = again
                again.begin()
        return [consumer.topic for consumer in found]

    async def _replay_from_broker(self, topic: str, group: str, start: Start) -> None:
        """Forget what was handled, then move the group, then have everybody look where it is now.

        In this order, because replicas elsewhere go on meanwhile: whoever takes a partition over after it was moved
        must remember none of its events as handled, and who was idle on it would never look.
        """
        home = self._seats[group.partition(".")[0]].home
        async with home.database.transaction() as connection:
            for name in (topic, behind_broker(topic)):
                positions = Positions(home.database, group, name, self.settings.partitions)
                await positions.forget(connection, now_ms(self._clock))
        await self.transport.seek(topic, group, start)
        async with home.database.transaction() as connection:
            await revoke(connection, f"{group}@{topic}")
        await home.leases.beat()

    def stats(self) -> dict[str, Any]:
        """Counts since the start, for JSON."""
        return {
            "consumers": [
                {"group": each.group, "topic": each.topic, **each.stats()} for each in self._consumers.values()
            ],
            "relays": [{"topic": each.topic, "relayed": each.relayed} for each in self._relays.values()],
        }

    def take_measures(self) -> list[Measure]:
        """How many events were fetched and are not handled yet, by consumer; of the rest only its log knows."""
        found: list[Measure] = []
        for each in self._consumers.values():
            stats = each.stats()
            held = float(stats["waiting"] + stats["resting"] + stats["working"])
            names = {"seamline.events.group": each.group, "seamline.events.topic": each.topic}
            found.append(Measure("seamline.events.lag", held, each.group.partition(".")[0], "gauge", "{event}", names))
        return found

    async def admin(self, operation: str, arguments: dict[str, Any]) -> Any:
        """Answer the command line; see :mod:`seamline.events.operations`."""
        from seamline.events.operations import Operations

        return await Operations(self).run(operation, arguments)
