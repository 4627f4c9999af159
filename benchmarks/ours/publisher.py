"""``python -m ... <folder>``: one call is one event, on disk when it is acknowledged."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.driver import Call, drive
from benchmarks.ours.events import EVENT, open_events


async def connect() -> Call:
    events = await open_events(Path(sys.argv[1]))
    return lambda: events.publish(EVENT)


if __name__ == "__main__":
    drive(connect)
