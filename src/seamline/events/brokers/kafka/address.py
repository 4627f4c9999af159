"""``kafka://[user:password@]host:port[,host:port][?property=value]``, as librdkafka's properties.

A property that begins with ``consumer.`` or ``producer.`` is for that kind of client only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from seamline.events.errors import BrokerUrlError

_KIND = re.compile(r"(consumer|producer)\.")
_SCHEMES = {"kafka": "PLAINTEXT", "kafka+tls": "SSL"}
_OURS = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.gapless.guarantee",
        "enable.idempotence",
        "group.id",
        "message.timeout.ms",
        "metadata.broker.list",
        "partition.assignment.strategy",
        "partitioner",
        "request.required.acks",
        "transactional.id",
    }
)
"""What this transport's promises stand on; a url must not change it."""
_SHAPE = (
    "Write kafka://host:9092 or kafka+tls://user:password@host:9093,host2:9093, with properties of librdkafka after "
    "a `?` where they are needed, such as ?sasl.mechanism=PLAIN."
)


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """Where the cluster is. What it knows may hold a password and is not shown."""

    _properties: dict[str, str] = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> KafkaAddress:
        """Raises BrokerUrlError; its text never holds the password."""
        parts = urlsplit(url)
        protocol = _SCHEMES.get(parts.scheme)
        if protocol is None:
            raise BrokerUrlError(f"the broker's url begins with {parts.scheme!r}", _SHAPE)
        credentials, _, hosts = parts.netloc.rpartition("@")
        servers = ",".join(_server(host) for host in hosts.split(","))
        properties = {"security.protocol": protocol}
        if credentials:
            user, _, password = credentials.partition(":")
            properties |= {
                "security.protocol": f"SASL_{protocol}",
                "sasl.mechanism": "SCRAM-SHA-512",
                "sasl.username": unquote(user),
                "sasl.password": unquote(password),
            }
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        if taken := sorted(name for name in given if _KIND.sub("", name) in _OURS):
            raise BrokerUrlError(
                f"the broker's url sets {taken[0]!r}, which Seamline's promises stand on",
                "Remove it from the url.",
            )
        return cls(properties | given | {"bootstrap.servers": servers})

    def of(self, kind: Literal["consumer", "producer", "admin"]) -> dict[str, Any]:
        """The properties of one kind of client."""
        found = {name: value for name, value in self._properties.items() if not _KIND.match(name)}
        own = {name: value for name, value in self._properties.items() if name.startswith(f"{kind}.")}
        return found | {_KIND.sub("", name): value for name, value in own.items()}


def _server(host: str) -> str:
    name, colon, port = host.rpartition(":")
    if host and not colon:
        return f"{host}:9092"
    if not name or not port.isdigit() or not 0 < int(port) < 65536:
        raise BrokerUrlError(f"the broker's url has the server {host!r}", _SHAPE)
    return host
