"""Replay: a group is moved by a member that is alone in it, which is also how it is known that nobody else is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from seamline.events.brokers.kafka.cluster import unreachable
from seamline.events.brokers.kafka.subscription import member_settings
from seamline.events.errors import BrokerError

_ALONE_S = 30.0
"""Longer than a session, so that a member that was killed is forgotten."""
_POLL_S = 0.1


def move_group(settings: Mapping[str, Any], group: str, topic: str, offsets: Mapping[int, int]) -> None:
    """Commit ``offsets`` of all partitions. Blocks. Raises BrokerError when the group has other members."""
    held: set[int] = set()

    def assigned(client: Consumer, places: list[TopicPartition]) -> None:
        client.incremental_assign(places)
        client.pause(places)
        held.update(place.partition for place in places)

    def revoked(_: Consumer, places: list[TopicPartition]) -> None:
        held.difference_update(place.partition for place in places)

    client = Consumer(member_settings(settings, group))
    try:
        client.subscribe([topic], on_assign=assigned, on_revoke=revoked, on_lost=revoked)
        deadline = time.monotonic() + _ALONE_S
        while held != set(offsets):
            client.poll(_POLL_S)
            if time.monotonic() > deadline:
                raise BrokerError(
                    f"the group {group!r} has other members, or Kafka does not let us in, and cannot be moved",
                    "Stop the processes of its module, then move it again.",
                )
        places = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        client.commit(offsets=places, asynchronous=False)
    except KafkaException as error:
        raise unreachable(error, f"moving the group {group!r}") from None
    finally:
        client.close()
