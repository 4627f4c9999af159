"""Processes that the tests of the telemetry store kill or starve.

python -m tests.observe.store_child write FOLDER      adds traces for ever, says what is committed, seals
python -m tests.observe.store_child starve FOLDER     fills what it may, then is given room again
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from tests.observe.stored import add, trace

from seamline.kernel.clock import SystemClock
from seamline.kernel.settings.observe import ObserveSettings
from seamline.observe.records import Log
from seamline.observe.store import TelemetryStore

SETTINGS = ObserveSettings(hot_s=0.5, keep_traces=1.0)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def write(folder: Path) -> None:
    store = TelemetryStore(folder, SETTINGS, SystemClock())
    store.start()
    seed = time.time_ns()

    def adding() -> None:
        number = 0
        while True:
            traces = [trace(number + each, store.now_ns(), seed=seed) for each in range(20)]
            lines = [Log(store.now_ns(), 9, "cart", f"trace {spans[0].trace_id.hex()}") for spans in traces]
            half = [span for spans in traces for span in spans[: len(spans) // 2]]
            rest = [span for spans in traces for span in spans[len(spans) // 2 :]]
            add(store, half)
            add(store, rest, lines)
            told = " ".join(f"{spans[0].trace_id.hex()}:{len(spans)}" for spans in traces)
            say(told)
            number += 20

    async def tending() -> None:
        while True:
            await store.tend()

    await asyncio.gather(asyncio.to_thread(adding), tending())


def starve(folder: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails, as on a full disk
    store = TelemetryStore(folder, replace(SETTINGS, hot_s=3600), SystemClock())
    store.start()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, hard))
    number = 0
    while not store.trouble:
        add(store, [span for each in range(500) for span in trace(number + each, store.now_ns())])
        number += 500
    say(f"trouble: {store.trouble}")
    add(store, trace(1_000_000, store.now_ns()))
    say(f"dropped: {store.dropped['spans']}")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    last = trace(2_000_000, store.now_ns())
    add(store, last)
    say(f"again: {store.trouble or 'kept'} {last[0].trace_id.hex()} {number}")
    store.close()


if __name__ == "__main__":
    logging.disable()
    where = Path(sys.argv[2])
    if sys.argv[1] == "write":
        asyncio.run(write(where))
    else:
        starve(where)
