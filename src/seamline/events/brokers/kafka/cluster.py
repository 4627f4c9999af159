"""What is asked of the cluster itself: topics, offsets and durability. Every call blocks: run them on threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,  # pyright: ignore[reportPrivateImportUsage]  # its documented place
    NewTopic,  # pyright: ignore[reportPrivateImportUsage]
    OffsetSpec,  # pyright: ignore[reportPrivateImportUsage]
)

from seamline.events.errors import BrokerError, BrokerUrlError
from seamline.kernel.signal import log
from seamline.module.module import Start

client_log = log.get("seamline.events.brokers.kafka.client")
"""What librdkafka has to say."""
client_log.addFilter(lambda record: "enable.gapless.guarantee is experimental" not in record.getMessage())

REQUEST_TIMEOUT_S = 10.0
_ANSWER_TIMEOUT_S = 5.0
_UNKNOWN = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})  # noqa: SLF001  # its public name
_OCCUPIED = frozenset({KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP, KafkaError.REBALANCE_IN_PROGRESS})
_UNHEARD = frozenset({KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE})  # noqa: SLF001  # likewise
_FLUSHES_NEVER = 2**62


@dataclass(frozen=True, slots=True)
class Durability:
    """What stands behind an acknowledgement; 0 where the cluster does not say."""

    replicas: int
    in_sync_min: int
    flush_messages: int

    @property
    def outlives_a_machine(self) -> bool:
        """Whether what was acknowledged is still there when one machine loses its power."""
        return self.flush_messages == 1 or self.in_sync_min > 1

    def __str__(self) -> str:
        least = (
            f"at least {self.in_sync_min}" if self.in_sync_min else "those in sync, how many the cluster does not say,"
        )
        flushed = "on disk" if self.flush_messages == 1 else "in their page cache, without an fsync"
        return f"{least} of {self.replicas} replicas have it {flushed}"


class Cluster:
    """Raises BrokerUrlError when the client cannot be made of ``settings``."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._servers = settings["bootstrap.servers"]
        self._settings = settings
        self._admin = self._client()

    def _client(self) -> Any:  # its stubs know no futures' types
        try:
            return AdminClient({**self._settings, "logger": cast("Any", client_log)})
        except (KafkaException, ValueError, TypeError) as error:
            raise BrokerUrlError(
                f"the client refuses the broker's url: {reason(error)}",
                "Properties after the `?` are those of librdkafka's CONFIGURATION.md.",
            ) from None

    def brokers(self) -> int:
        """How many brokers there are; proves that the cluster answers."""
        try:
            return len(self._admin.list_topics(timeout=_ANSWER_TIMEOUT_S).brokers)
        except KafkaException as error:
            raise unreachable(error, f"the cluster of {self._servers}") from None

    def partitions(self, topic: str) -> int:
        """Of the topic; 0 when there is no such topic."""
        return len(self._replicas(topic))

    def _replicas(self, topic: str) -> list[int]:
        """Of each partition; asked so that no broker makes the topic by itself, with as many partitions as it likes."""
        asked = TopicCollection([topic])
        try:
            found = self._result(self._admin.describe_topics(asked, request_timeout=REQUEST_TIMEOUT_S))
        except KafkaException as error:
            if code(error) in _UNKNOWN:
                return []
            raise unreachable(error, f"the topic {topic!r}") from None
        return [len(partition.replicas) for partition in found.partitions]

    def ensure_topic(self, topic: str, partitions: int, retention_ms: int) -> None:
        """Make the topic unless it is there. It must have so many partitions."""
        found = self.partitions(topic)
        if not found:
            self._create(topic, partitions, retention_ms)
            found = self.partitions(topic) or partitions
        if found != partitions:
            raise BrokerError(
                f"the topic {topic!r} has {found} partitions, and [events] partitions is {partitions}",
                f"Set `partitions = {found}`: the order of a key holds only while its partition stays the same.",
            )

    def _create(self, topic: str, partitions: int, retention_ms: int) -> None:
        replicas = min(3, self.brokers())
        settings = {"retention.ms": str(retention_ms), "message.timestamp.type": "CreateTime"}
        if replicas == 3:
            settings["min.insync.replicas"] = "2"
        wanted = NewTopic(topic, num_partitions=partitions, replication_factor=replicas, config=settings)
        try:
            self._result(self._admin.create_topics([wanted], request_timeout=REQUEST_TIMEOUT_S))
        except KafkaException as error:
            if code(error) != KafkaError.TOPIC_ALREADY_EXISTS:
                raise BrokerError(
                    f"the topic {topic!r} is not there and cannot be made: {reason(error)}",
                    f"Let us CREATE topics, or run `kafka-topics.sh --create --topic {topic} --partitions "
                    f"{partitions} --replication-factor {replicas}`.",
                ) from None

    def durability(self, topic: str) -> Durability:
        """As far as we may read it."""
        replicas = min(self._replicas(topic), default=0)
        try:
            asked = [ConfigResource(ConfigResource.Type.TOPIC, topic)]
            config = self._result(self._admin.describe_configs(asked, request_timeout=REQUEST_TIMEOUT_S))
        except KafkaException:
            return Durability(replicas, 0, 0)
        flush_messages = int(config["flush.messages"].value)
        return Durability(
            replicas, int(config["min.insync.replicas"].value), flush_messages if flush_messages < _FLUSHES_NEVER else 0
        )

    def ends(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        return self._offsets(topic, partitions, OffsetSpec.latest())

    def begins(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        return self._offsets(topic, partitions, OffsetSpec.earliest())

    def offsets_at(self, topic: str, partitions: Iterable[int], start: Start) -> dict[int, int]:
        """Where ``start`` is in each of the partitions. An offset is the same in each, within what is kept."""
        asked = list(partitions)
        if start == "earliest":
            return self.begins(topic, asked)
        ends = self.ends(topic, asked)
        if start == "latest":
            return ends
        if isinstance(start, datetime):
            moment = OffsetSpec.for_timestamp(int(start.timestamp() * 1000))
            found = self._offsets(topic, asked, moment)  # -1 where nothing is that young
            return {partition: offset if offset >= 0 else ends[partition] for partition, offset in found.items()}
        begins = self.begins(topic, asked)
        return {partition: min(max(start, begins[partition]), ends[partition]) for partition in asked}

    def committed(self, group: str, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """What the group has committed; nothing for partitions where it has not."""
        places = [TopicPartition(topic, partition) for partition in partitions]
        if not places:
            return {}
        asked = ConsumerGroupTopicPartitions(group, places)
        found = self._checked(self._admin.list_consumer_group_offsets, [asked], what=f"the offsets of {group!r}")
        return {place.partition: place.offset for place in found.topic_partitions if place.offset >= 0}

    def move(self, group: str, topic: str, offsets: Mapping[int, int]) -> bool:
        """Commit offsets for a group without members; False when it has some."""
        places = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        asked = ConsumerGroupTopicPartitions(group, places)
        try:
            moved = self._result(self._admin.alter_consumer_group_offsets([asked], request_timeout=REQUEST_TIMEOUT_S))
            failed = [place.error for place in moved.topic_partitions if place.error is not None]
        except KafkaException as error:
            failed = [cast("KafkaError", error.args[0])]
        if any(error.code() in _OCCUPIED for error in failed):
            return False
        if failed:
            raise BrokerError(
                f"the group {group!r} cannot be moved: {failed[0].str()}", "Grant READ on the group and the topic."
            )
        return True

    def _offsets(self, topic: str, partitions: Iterable[int], spec: OffsetSpec | None) -> dict[int, int]:
        asked = {TopicPartition(topic, partition): spec for partition in partitions}
        if not asked:
            return {}
        try:
            futures = self._admin.list_offsets(asked, request_timeout=REQUEST_TIMEOUT_S)
            return {place.partition: future.result(REQUEST_TIMEOUT_S).offset for place, future in futures.items()}
        except KafkaException as error:
            raise self._unheard(error, f"the offsets of {topic!r}") from None

    def _checked(self, ask: Any, *words: Any, what: str) -> Any:
        try:
            return self._result(ask(*words, request_timeout=REQUEST_TIMEOUT_S))
        except KafkaException as error:
            raise self._unheard(error, what) from None

    def _unheard(self, error: KafkaException, what: str) -> BrokerError:
        if code(error) in _UNHEARD:
            # A client that was connected while brokers came and went may wait for ever; a new one is answered.
            self._admin = self._client()
        return unreachable(error, what)

    @staticmethod
    def _result(futures: Mapping[Any, Future[Any]]) -> Any:
        """Of a request for one thing."""
        (future,) = futures.values()
        return future.result(REQUEST_TIMEOUT_S * 2)


def code(error: KafkaException) -> int:
    return cast("KafkaError", error.args[0]).code()


def reason(error: BaseException) -> str:
    """What the client says, in its own words."""
    first = error.args[0] if error.args else error
    return first.str() if isinstance(first, KafkaError) else str(first)


def unreachable(error: KafkaException, what: str) -> BrokerError:
    return BrokerError(
        f"Kafka does not answer for {what}: {reason(error)}",
        "Start it, or correct [events] broker. It is tried again by itself.",
    )
