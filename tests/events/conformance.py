"""What every transport has to keep, and where a transport enters itself to be asked.

A :class:`Contender` says how its broker is started; those in ``contenders.py`` are what the suite runs against.
An :class:`Arena` gives a test transports as different processes would have them: each with leases of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Protocol, Self
from uuid import uuid4

import msgspec

from seamline.events.brokers import open_transport
from seamline.events.errors import BrokerError
from seamline.events.leases import Leases
from seamline.events.record import Record
from seamline.events.transport import Delivery, Subscription, Transport
from seamline.kernel.clock import SystemClock
from seamline.kernel.owner import process_owner
from seamline.kernel.settings import EventsSettings
from seamline.kernel.store import Database

TOPIC = "orders"
GROUP = "emails.confirm"
TYPE = "OrderPlaced"
TYPES = frozenset((TYPE,))
PATIENCE_S = 20.0


class Broker(Protocol):
    """A server under test."""

    def url(self, password: str = ...) -> str: ...
    def kill(self) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


@dataclass(frozen=True)
class Contender:
    """A transport that takes part.

    Args:
        serve: starts its broker, which ends with the block.
        installed: whether the broker can be started here; its tests are skipped with ``missing`` if not.
        missing: what to install.
        prepare: called with url, application and topic before a transport uses them.
        open: makes a transport that is not a broker's.
        served: there is a server, at a url.
        restarts: its broker can be killed, and started again on its data.
        passwords: its broker refuses a wrong password.
        leased: deliveries carry a fence.
        exact: what was acknowledged out of order is not handed out again.
        seeks: a group can start at a time or an offset.
    """

    name: str
    serve: Callable[[], AbstractContextManager[Broker]]
    installed: Callable[[], bool] = lambda: True
    missing: str = ""
    prepare: Callable[[str, str, str], None] | None = None
    open: Callable[[Arena, Callable[[str], Leases]], Transport] | None = None
    served: bool = True
    restarts: bool = True
    passwords: bool = True
    leased: bool = True
    exact: bool = True
    seeks: bool = True


def record(
    number: int, key: str = "k", *, type_: str = TYPE, due_ms: int = 0, expires_ms: int = 0, data: bytes | None = None
) -> Record:
    return Record(
        id=f"{number}-{uuid4().hex[:8]}",
        source=TOPIC,
        type=type_,
        data=data if data is not None else msgspec.json.encode({"number": number}),
        time_ms=int(time() * 1000),
        key=key,
        due_ms=due_ms,
        expires_ms=expires_ms,
    )


def number_of(delivery: Delivery) -> int:
    return msgspec.json.decode(delivery.record.data)["number"]


class Arena:
    """One application on one broker, and transports as its processes have them."""

    def __init__(self, contender: Contender, broker: Broker, folder: Path, *, partitions: int = 4) -> None:
        self.contender = contender
        self.broker = broker
        self.app = f"a{uuid4().hex[:10]}"
        self.clock = SystemClock()
        self.folder = folder
        self.settings = EventsSettings(partitions=partitions)
        self.database = Database(f"sqlite:///{folder}/emails.sqlite3", "emails")
        self._members: list[tuple[Transport, dict[str, Leases]]] = []

    async def __aenter__(self) -> Self:
        await self.database.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for transport in [transport for transport, _ in self._members]:
            await self.leave(transport)
        await self.database.close()

    def transport(self, url: str = "") -> Transport:
        """A transport that is not started, as another process would have it."""
        members: dict[str, Leases] = {}

        def leases(module: str) -> Leases:
            if module not in members:
                members[module] = Leases(self.database, process_owner(uuid4().hex[:6]), self.clock, ttl_s=1.5)
            return members[module]

        url = url or self.broker.url()
        if self.contender.prepare is not None:
            self.contender.prepare(url, self.app, TOPIC)
        transport = (
            self.contender.open(self, leases)
            if self.contender.open is not None
            else open_transport(url, app=self.app, settings=self.settings, leases=leases, clock=self.clock)
        )
        self._members.append((transport, members))
        return transport

    async def join(self) -> Transport:
        """A transport that is started."""
        transport = self.transport()
        await transport.start()
        return transport

    async def leave(self, transport: Transport) -> None:
        """Close it, and the leases with it."""
        for known, leases in list(self._members):
            if known is transport:
                self._members.remove((known, leases))
                await transport.close()
                for each in leases.values():
                    await each.close()

    @asynccontextmanager
    async def subscribed(self, transport: Transport, group: str = GROUP) -> AsyncGenerator[Subscription]:
        subscription = await transport.subscribe(TOPIC, group, TYPES, "earliest")
        try:
            yield subscription
        finally:
            await subscription.close()


async def take(subscription: Subscription, count: int, *, acknowledge: bool = True) -> list[Delivery]:
    """``count`` deliveries, however many fetches that takes, and patience with a broker that is away."""
    found: list[Delivery] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            try:
                part = await subscription.fetch(count - len(found), 1.0)
                if acknowledge and part:
                    await subscription.acknowledge(part)
            except BrokerError:
                await asyncio.sleep(0.05)
                continue
            found += part
    return found


async def persistently(work: Callable[[], Awaitable[None]]) -> None:
    """As the relay does: again, until the broker has acknowledged it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await work()
            except BrokerError:
                await asyncio.sleep(0.05)
            else:
                return


def by_key(deliveries: Iterable[Delivery]) -> dict[str, list[int]]:
    """The numbers that came, in the order in which they did; repeats left out."""
    found: dict[str, dict[int, None]] = {}
    for delivery in deliveries:
        found.setdefault(delivery.record.key, {}).setdefault(number_of(delivery))
    return {key: list(numbers) for key, numbers in found.items()}


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.record.id for delivery in deliveries]
