"""``python -m ... <port>``: one call is an event published, pushed to a consumer in this process, acknowledged."""

from __future__ import annotations

import asyncio
import sys
from itertools import count

import nats
from nats.aio.msg import Msg

from benchmarks.driver import Call, drive
from benchmarks.event import BODY, TOPIC


async def connect() -> Call:
    connection = await nats.connect(f"nats://127.0.0.1:{sys.argv[1]}")
    stream = connection.jetstream()
    await stream.add_stream(name=f"{TOPIC}-back", subjects=[f"{TOPIC}-back.>"])
    waiting: dict[str, asyncio.Future[None]] = {}
    numbers = count()

    async def arrived(message: Msg) -> None:
        await message.ack()
        heard = waiting.pop((message.headers or {}).get("number", ""), None)
        if heard is not None:
            heard.set_result(None)

    await stream.subscribe(f"{TOPIC}-back.>", durable="bench", cb=arrived, manual_ack=True)

    async def publish() -> None:
        number = str(next(numbers))
        heard = waiting[number] = asyncio.get_running_loop().create_future()
        await stream.publish(f"{TOPIC}-back.placed", BODY, headers={"number": number})
        await heard

    return publish


if __name__ == "__main__":
    drive(connect)
