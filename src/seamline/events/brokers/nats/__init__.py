"""NATS JetStream as the way between modules.

link.py      the connection, and what its errors are in our words
log.py       streams, places and what is read at once; what :class:`~..partitioned.PartitionedLog` asks for
writing.py   messages out, many on their way at once and none stored without the one before it
reading.py   messages in: a reader on the server for each partition
"""

from seamline.events.brokers.nats.log import NatsLog

__all__ = ["NatsLog"]
