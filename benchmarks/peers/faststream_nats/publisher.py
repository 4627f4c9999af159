"""``python -m ... <port>``: one call is one acknowledged publish to a stream."""

from __future__ import annotations

import sys

from faststream.nats import JStream, NatsBroker

from benchmarks.driver import Call, drive
from benchmarks.event import CONTENT, TOPIC


async def connect() -> Call:
    broker = NatsBroker(f"nats://127.0.0.1:{sys.argv[1]}", logger=None)
    stream = JStream(f"{TOPIC}-faststream", declare=True)
    publisher = broker.publisher(f"{TOPIC}-faststream.placed", stream=stream)
    await broker.start()

    async def publish() -> None:
        await publisher.publish(CONTENT)

    return publish


if __name__ == "__main__":
    drive(connect)
