"""The transports that the conformance suite and the history checker run against."""

from __future__ import annotations

from tests.events.conformance import Contender
from tests.events.embedded_way import EmbeddedWay, serve_nothing
from tests.events.kafka_mock import prepare_kafka, real_servers, serve_kafka
from tests.events.servers import Nats, Postgresql, Redis

_KNOWN = [
    Contender("embedded", serve_nothing, open=EmbeddedWay, served=False, restarts=False, passwords=False, exact=False),
    Contender("nats", Nats, Nats.installed, Nats.program),
    Contender("redis", Redis, Redis.installed, Redis.program),
    Contender("postgresql", Postgresql, Postgresql.installed, Postgresql.program),
    Contender(
        "kafka" if real_servers() else "kafka-mock",
        serve_kafka,
        restarts=not real_servers(),
        prepare=prepare_kafka,
        passwords=False,
        leased=False,
        seeks=bool(real_servers()),  # the mock finds no offsets by time
    ),
]
CONTENDERS = {contender.name: contender for contender in _KNOWN}
