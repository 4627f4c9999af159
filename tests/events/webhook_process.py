"""A process that sends webhooks, for tests that kill it: ``python -m tests.events.webhook_process``.

Arguments: the folder, the receiver's url, by how many seconds its clock goes ahead, and ``publish`` where it is
to publish an event.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.events.shop import Sold, running, shop, until
from tests.events.test_webhooks_out import ATTEMPTS, settings

from seamline.kernel.clock import SystemClock


async def main(folder: str, url: str, ahead_s: str, publish: str = "") -> None:
    clock = SystemClock()
    clock.offset_s = float(ahead_s)
    async with running(Path(folder), shop(), webhooks=(settings(url, attempts=ATTEMPTS),), clock=clock) as process:
        await until(process.joined)
        if publish:
            await process.events.publish(Sold(sku="mug", number=2))
        await until(lambda: process.runtime.stats()["consumers"][0]["resting"])
        sys.stdout.write("resting\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
