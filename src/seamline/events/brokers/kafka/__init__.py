"""Apache Kafka as the way between modules.

    address.py        the url: where the cluster is and how we prove who we are
    cluster.py        topics, offsets and what the cluster says of durability; blocking, run on threads
    producer.py       records out: idempotent, acknowledged by all in-sync replicas
    subscription.py   records in: one member of a consumer group, polled by a thread of its own
    seeking.py       a group is moved, for replay
    positions.py      what of a partition is done, so that the lowest open record is where a successor begins
    transport.py      the ends tied together

A module's topic is ``<application>.<module>``, a group's id ``<application>.<module>.<handler>``. The client is
confluent-kafka: librdkafka keeps a member's heartbeats on threads of its own, so that a handler that holds the event
loop does not lose its partitions, and it rebalances without stopping those that stay where they are.

Nothing here is a Kafka transaction. The relay's place is in the module's own database, which Kafka cannot commit
together with a batch, so that a crash between the two repeats the batch either way, and the consumer's inbox drops what
is repeated; a transaction would cost one more round trip for each batch and let a stuck one hold up every reader.
"""

from seamline.events.brokers.kafka.transport import KafkaTransport

__all__ = ["KafkaTransport"]
