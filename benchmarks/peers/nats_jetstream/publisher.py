"""``python -m ... <port>``: one call is one acknowledged publish."""

from __future__ import annotations

import sys

import nats

from benchmarks.driver import Call, drive
from benchmarks.event import BODY, TOPIC


async def connect() -> Call:
    connection = await nats.connect(f"nats://127.0.0.1:{sys.argv[1]}")
    stream = connection.jetstream()
    await stream.add_stream(name=TOPIC, subjects=[f"{TOPIC}.>"])

    async def publish() -> None:
        await stream.publish(f"{TOPIC}.placed", BODY)

    return publish


if __name__ == "__main__":
    drive(connect)
