"""Kafka for tests: librdkafka's mock cluster, or the servers that ``KAFKA_BOOTSTRAP_SERVERS`` names.

The mock speaks Kafka's protocol on loopback ports of this process. It is the nearest to Kafka that needs no server. It
has topics with partitions and leaders, idempotent and transactional producers, consumer groups with rebalances and
committed offsets, and faults by request. It does not

- keep anything on disk, replicate, elect leaders or tell configurations: durability is out of its sight;
- end a fetch that waits when something comes, so that consumers wait ``fetch.wait.max.ms`` (here 20);
- make topics by the admin protocol (``CreateTopics``): tests make them by :meth:`KafkaMock.topic`;
- find offsets by time: it answers every such question with "nothing that young";
- check a producer's sequence numbers: it drops no repeats, and takes what follows a request that it refused;
- hide what a transaction has not committed, or check that it is whole;
- forget a group, so that one that had members takes offsets from members only;
- end a rebalance when all members are back: it waits for a session timeout less a second, so that sessions are short;
- authenticate or authorise.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import confluent_kafka

PRODUCE, OFFSET_COMMIT, JOIN_GROUP = 0, 8, 11
"""Kinds of requests, by their numbers in Kafka's protocol."""

_BROKERS = 3
_PRODUCER = 0
_QUICK = (
    "consumer.fetch.wait.max.ms=20&consumer.session.timeout.ms=1500&consumer.heartbeat.interval.ms=100"
    "&reconnect.backoff.ms=20&reconnect.backoff.max.ms=200"
)
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (ctypes.c_void_p, []),
    "rd_kafka_conf_set": (ctypes.c_int, [ctypes.c_void_p, *[ctypes.c_char_p] * 3, ctypes.c_size_t]),
    "rd_kafka_new": (ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]),
    "rd_kafka_destroy": (None, [ctypes.c_void_p]),
    "rd_kafka_mock_cluster_new": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]),
    "rd_kafka_mock_cluster_destroy": (None, [ctypes.c_void_p]),
    "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, [ctypes.c_void_p]),
    "rd_kafka_mock_set_controller_id": (None, [ctypes.c_void_p, ctypes.c_int32]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [ctypes.c_void_p, ctypes.c_int32]),
    "rd_kafka_mock_topic_create": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]),
    "rd_kafka_mock_broker_set_down": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_up": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_rtt": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int]),
    "rd_kafka_mock_partition_delete_records": (
        ctypes.c_int, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int64],
    ),
    "rd_kafka_mock_push_request_errors_array": (
        None, [ctypes.c_void_p, ctypes.c_int16, ctypes.c_size_t, ctypes.c_void_p],
    ),
}  # fmt: skip


class KafkaMock:
    """A cluster of three brokers, until :meth:`close`."""

    name = "kafka-mock"

    def __init__(self) -> None:
        package = Path(confluent_kafka.__file__).parent
        (library,) = package.parent.glob("confluent_kafka.libs/librdkafka*")
        self._lib = ctypes.CDLL(str(library))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self._lib, name)
            function.restype, function.argtypes = result, arguments
        settings = self._lib.rd_kafka_conf_new()
        self._lib.rd_kafka_conf_set(settings, b"log_level", b"0", None, 0)
        self._client = self._lib.rd_kafka_new(_PRODUCER, settings, None, 0)
        self._cluster = self._lib.rd_kafka_mock_cluster_new(self._client, _BROKERS)
        self._lib.rd_kafka_mock_set_controller_id(self._cluster, 1)
        self._lib.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)

    @property
    def servers(self) -> str:
        """One of them, which tells of the others."""
        return self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode().partition(",")[0]

    def url(self, password: str = "") -> str:
        assert not password, "the mock authenticates nobody"
        return f"kafka://{self.servers}?{_QUICK}"

    def prepare(self, app: str, topic: str, partitions: int) -> None:
        self.topic(f"{app}.{topic}", partitions)

    def topic(self, name: str, partitions: int) -> None:
        """Make it unless it is there."""
        self._lib.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, _BROKERS)

    def down(self, broker: int = -1) -> None:
        """Close the connections of a broker, or of all, and take no new ones."""
        self._lib.rd_kafka_mock_broker_set_down(self._cluster, broker)

    def up(self, broker: int = -1) -> None:
        self._lib.rd_kafka_mock_broker_set_up(self._cluster, broker)

    def delay(self, rtt_ms: int) -> None:
        """Every answer takes so long."""
        self._lib.rd_kafka_mock_broker_set_rtt(self._cluster, -1, rtt_ms)

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """What retention does."""
        self._lib.rd_kafka_mock_partition_delete_records(self._cluster, topic.encode(), partition, offset)

    def fail(self, request: int, errors: Sequence[int]) -> None:
        """Answer the next requests of a kind with these codes of ``KafkaError``, one after the other."""
        codes = (ctypes.c_int * len(errors))(*errors)
        self._lib.rd_kafka_mock_push_request_errors_array(self._cluster, request, len(errors), codes)

    # As a broker that is killed and started again on its data.

    def kill(self) -> None:
        self.down()

    def stop(self) -> None:
        self.down()

    def start(self) -> None:
        self.up()

    def close(self) -> None:
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._client)


class KafkaServer:
    """A real cluster, which somebody else starts and stops."""

    name = "kafka"

    def __init__(self, servers: str) -> None:
        self.servers = servers

    def url(self, password: str = "") -> str:
        assert not password, "it is reached without one"
        return f"kafka://{self.servers}"

    def prepare(self, app: str, topic: str, partitions: int) -> None:
        """The transport makes its topics."""

    def kill(self) -> None:
        raise NotImplementedError

    stop = start = kill

    def close(self) -> None:
        """It goes on."""


def real_servers() -> str:
    """Empty where only the mock is at hand."""
    return os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")  # noqa: TID251  # where a real cluster is, for tests only


def open_kafka() -> KafkaMock | KafkaServer:
    servers = real_servers()
    return KafkaServer(servers) if servers else KafkaMock()


@contextmanager
def serve_kafka() -> Generator[KafkaMock | KafkaServer]:
    """The cluster that tests share."""
    kafka = open_kafka()
    _SERVED[kafka.url()] = kafka
    try:
        yield kafka
    finally:
        kafka.close()


_SERVED: dict[str, KafkaMock | KafkaServer] = {}


def prepare_kafka(url: str, app: str, topic: str) -> None:
    """Four partitions, as an arena has them."""
    if (kafka := _SERVED.get(url)) is not None:
        kafka.prepare(app, topic, 4)
