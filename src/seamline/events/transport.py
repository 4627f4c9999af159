"""How events get from the module that published them to the consumer groups of others: one interface, many ways.

Every module publishes into its own log, in its own database (see ``log``). A transport brings what is there to
consumers: the embedded one lets them read it over the mesh; a broker's gets it from a relay, which forwards the log in
batches. Retries, dead letters and the memory of what was handled are the consumer's and the same with all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from seamline.events.record import Record
from seamline.module.module import Start


@dataclass(frozen=True, slots=True)
class Fence:
    """Proof that a partition was ours when its events were handed out: a lease's name and epoch in the consumer's
    own database. Whoever commits an effect checks it in the same transaction."""

    lease: str
    epoch: int


class Delivery(NamedTuple):
    """A record handed to a consumer group, to be acknowledged."""

    record: Record
    topic: str
    partition: int
    offset: str
    """Where it is in its partition, in the transport's own words; for people and for acknowledging."""
    fence: Fence | None = None
    redelivered: bool = False
    """The transport knows that it was handed out before."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a group is behind on a topic: events not acknowledged yet, and the age of the oldest in seconds."""

    events: int
    oldest_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Promises:
    """What a transport promises, as it stands in the documentation's table."""

    name: str
    durable_when: str
    """What has happened when a publish is acknowledged, fsync included; as read from the server where it can be."""
    order: str
    redelivery: str
    replay: str
    limits: str = ""


class Subscription(Protocol):
    """One consumer group's share of one topic in this process.

    What was fetched and not acknowledged is handed out again: to this process after :meth:`close` and a new
    subscription, to another one when this one is gone.
    """

    @property
    def replayed_ms(self) -> int:
        """What is older than this comes again because somebody asked for it while we were subscribed; 0 where a
        replay ends every subscription."""
        ...

    @property
    def claims(self) -> int:
        """How often partitions were taken over, perhaps at a place to which a replay has moved the group."""
        ...

    async def fetch(self, records_max: int, wait_s: float) -> Sequence[Delivery]:
        """Up to so many, as soon as there are any; empty after ``wait_s`` seconds. In order within a key.

        Events that are not due yet or have expired are not handed out.
        """
        ...

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """These were handled, or put with the dead letters. They may come in any order."""
        ...

    async def lag(self) -> Lag: ...

    async def close(self) -> None:
        """Give the share back, so that another process may have it at once."""
        ...


class Transport(Protocol):
    """A way for events. ``start`` raises EventsError with what is in the way."""

    promises: Promises
    relayed: bool
    """Whether a relay has to publish what modules wrote into their logs."""

    async def start(self) -> None: ...

    async def publish(self, topic: str, records: Sequence[Record]) -> None:
        """Hand records of one module on, in order; returns when the broker has acknowledged all of them.

        What is published twice, as after a crash of the relay, is handed out twice at the worst.
        """
        ...

    async def subscribe(self, topic: str, group: str, types: frozenset[str], start: Start) -> Subscription:
        """Join ``group`` on ``topic``; a new group begins at ``start``. Only ``types`` are handed out.

        ``group`` is ``<module>.<handler>``; processes that join the same one share its partitions.
        """
        ...

    async def seek(self, topic: str, group: str, start: Start) -> None:
        """Move a group that nobody is subscribed to: replay."""
        ...

    async def close(self) -> None: ...
