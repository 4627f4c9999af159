"""One file (or folder) for each broker: how its own words map to :mod:`seamline.events.transport`.

PostgreSQL, NATS and Redis share ``partitioned``, ``sharing`` and ``subscription``; Kafka has groups that keep order
and fence by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from seamline.events.brokers.urls import shown
from seamline.events.errors import BrokerUrlError
from seamline.events.transport import Transport
from seamline.kernel.clock import Clock
from seamline.kernel.settings import EventsSettings

if TYPE_CHECKING:
    from seamline.events.brokers.partitioned import PartitionedLog
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
    with _client_installed(url):
        if _scheme(url) in _KAFKA:
            from seamline.events.brokers.kafka import KafkaTransport

            return KafkaTransport(url, app, settings, clock)
        from seamline.events.brokers.sharing import PartitionedTransport

        log = _log_class(url)(url, app=app, settings=settings)
        return PartitionedTransport(log, name=_scheme(url), partitions=settings.partitions, leases=leases, clock=clock)


def check_url(url: str, *, app: str, settings: EventsSettings) -> None:
    """Raises BrokerUrlError as :func:`open_transport` would; nothing is started that could connect."""
    with _client_installed(url):
        if _scheme(url) in _KAFKA:
            from seamline.events.brokers.kafka.address import KafkaAddress

            KafkaAddress.parse(url)
        else:
            _log_class(url)(url, app=app, settings=settings)


def _scheme(url: str) -> str:
    return url.partition("://")[0]


@contextmanager
def _client_installed(url: str) -> Generator[None]:
    try:
        yield
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


def _log_class(url: str) -> Callable[..., PartitionedLog]:
    # Each client is heavy, and only the one that is used has to be installed.
    scheme = _scheme(url)
    if scheme in _POSTGRESQL:
        from seamline.events.brokers.postgresql import PostgresqlLog as Log
    elif scheme in _NATS:
        from seamline.events.brokers.nats import NatsLog as Log
    elif scheme in _REDIS:
        from seamline.events.brokers.redis import RedisLog as Log
    else:
        raise BrokerUrlError(
            f"{shown(url)!r} names no broker that is known",
            "Begin it with postgresql://, nats://, redis:// or kafka://, or leave it empty for the embedded log.",
        )
    return Log
