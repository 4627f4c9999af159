"""The transports that the conformance suite and the history checker run against. Add one by :func:`enter`."""

from __future__ import annotations

from tests.events.conformance import Contender, enter
from tests.events.kafka_mock import prepare_kafka, real_servers, serve_kafka
from tests.events.servers import Nats, Postgresql, Redis

enter(Contender("nats", Nats, Nats.installed, Nats.program))
enter(Contender("redis", Redis, Redis.installed, Redis.program))
enter(Contender("postgresql", Postgresql, Postgresql.installed, Postgresql.program))
enter(
    Contender(
        "kafka" if real_servers() else "kafka-mock",
        serve_kafka,
        prepare=prepare_kafka,
        restarts=not real_servers(),
        passwords=False,
        leased=False,
        seeks=bool(real_servers()),  # the mock finds no offsets by time
    )
)
