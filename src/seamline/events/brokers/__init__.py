"""One file (or folder) for each broker: how its own words map to :mod:`seamline.events.transport`.

PostgreSQL, NATS and Redis share ``partitioned``, ``sharing`` and ``subscription``; Kafka has groups that keep order
and fence by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from seamline.events.brokers.urls import shown
from seamline.events.errors import BrokerUrlError
from seamline.events.transport import Transport
from seamline.kernel.clock import Clock
from seamline.kernel.settings import EventsSettings

if TYPE_CHECKING:
    from seamline.events.leases import Leases

_POSTGRESQL: Final = frozenset(("postgresql", "postgresql+asyncpg", "postgres"))
_NATS: Final = frozenset(("nats", "tls"))
_REDIS: Final = frozenset(("redis", "rediss"))
_KAFKA: Final = frozenset(("kafka", "kafka+tls"))


def open_transport(
    url: str, *, app: str, settings: EventsSettings, leases: Callable[[str], Leases], clock: Clock
) -> Transport:
    """The transport that goes over the broker at ``url``. Nothing is connected before its ``start``.

    Args:
        app: the application's name, which keeps it apart from others on the same broker.
        leases: those in a consuming module's database, by its name.

    Raises:
        BrokerUrlError: the url is wrong, or the broker's client is not installed.
    """
    scheme = url.partition("://")[0]
    try:
        if scheme in _KAFKA:
            from seamline.events.brokers.kafka import KafkaTransport

            return KafkaTransport(url, app, settings, clock)
        return _partitioned(url, scheme, app, settings, leases, clock)
    except ModuleNotFoundError as error:
        extra = {"asyncpg": "postgresql", "nats": "nats", "redis": "redis", "confluent_kafka": "kafka"}.get(
            error.name or ""
        )
        if extra is None:
            raise
        raise BrokerUrlError(
            f"{shown(url)!r} needs the package {error.name}, which is not installed",
            f'Run: pip install "seamline[{extra}]"',
        ) from error


def _partitioned(
    url: str, scheme: str, app: str, settings: EventsSettings, leases: Callable[[str], Leases], clock: Clock
) -> Transport:
    # Each client is heavy, and only the one that is used has to be installed.
    from seamline.events.brokers.sharing import PartitionedTransport

    if scheme in _POSTGRESQL:
        from seamline.events.brokers.postgresql import PostgresqlLog as Log
    elif scheme in _NATS:
        from seamline.events.brokers.nats import NatsLog as Log
    elif scheme in _REDIS:
        from seamline.events.brokers.redis import RedisLog as Log
    else:
        raise BrokerUrlError(
            f"[events] broker is {shown(url)!r}, which names no broker that is known",
            "Begin it with postgresql://, nats://, redis:// or kafka://, or leave it empty for the embedded log",
        )
    log = Log(url, app=app, settings=settings)
    return PartitionedTransport(log, name=scheme, partitions=settings.partitions, leases=leases, clock=clock)
