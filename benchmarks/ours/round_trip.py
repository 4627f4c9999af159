"""``python -m ... <folder>``: one call is an event published, handled by a consumer group, remembered as handled."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks.driver import Call, drive
from benchmarks.ours.events import EVENT, open_events


async def connect() -> Call:
    heard: dict[str, asyncio.Future[None]] = {}
    events = await open_events(Path(sys.argv[1]), heard)
    numbers = iter(range(2**62))

    async def publish() -> None:
        # The id is known once the event is published, which may be after it was handled.
        number = await events.publish(EVENT, key=f"order {next(numbers)}")
        await heard.setdefault(number, asyncio.get_running_loop().create_future())
        del heard[number]

    return publish


if __name__ == "__main__":
    drive(connect)
