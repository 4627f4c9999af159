"""All of it together: what processes tell is taken in, kept, laid side by side, watched, and passed on.

One process hosts it. None of the parts waits for another: what one cannot take is dropped there, and counted.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from pathlib import Path
from typing import Final

from seamline.kernel.clock import Clock
from seamline.kernel.errors import SeamlineError
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings import Settings
from seamline.kernel.signal import log
from seamline.observe.detect.keeping import Incidents
from seamline.observe.detect.promises import Promises
from seamline.observe.intake import Intake
from seamline.observe.live import Live
from seamline.observe.otlp import OtlpExporter, OtlpReceiver
from seamline.observe.prometheus import Totals
from seamline.observe.records import Batch
from seamline.observe.store import TelemetryReader, TelemetryStore
from seamline.observe.watching import Watching
from seamline.observe.windows import Window, Windows

TELEMETRY_FOLDER: Final = "telemetry"
_LATEST_S: Final = 900.0
_LOOK_S: Final = 0.25
_log = log.get("seamline.observe")


class Observatory:
    """Watches one application.

    Args:
        settings: the application's.
        data: the data directory.
        clock: for windows, ages and notices.
        address: the portal's, which notices lead to.
    """

    def __init__(self, settings: Settings, data: Path, clock: Clock, *, address: str = "") -> None:
        observe, telemetry = settings.observe, settings.telemetry
        self.live = Live()
        self.latest: deque[Window] = deque(maxlen=int(_LATEST_S / observe.window_s))
        """The newest windows, oldest first."""
        self.totals = Totals()
        """For Prometheus."""
        self.store = TelemetryStore(data / TELEMETRY_FOLDER, observe, clock) if observe.store else None
        self.reader = TelemetryReader(data / TELEMETRY_FOLDER)
        self.receiver = OtlpReceiver(
            observe,
            self._take,
            own=settings.modules,
            room=self._has_room,
            metrics=self.totals.render,
            clock=clock,
        )
        self.exporter = OtlpExporter(telemetry, application=settings.app.name, clock=clock) if telemetry.otlp else None
        self._windows = Windows(observe.window_s, clock)
        self._watching = Watching(settings, self.reader, self.store, self.live, clock, address=address)
        self._intake = Intake(self._from_ours)
        self._owner = TaskOwner("observatory")

    async def start(self, intake: socket.socket) -> None:
        """Take in what comes over ``intake`` and over OTLP, until :meth:`stop`."""
        if self.store is not None:
            await asyncio.to_thread(self.store.start)
            self._owner.spawn(self.store.keep(), name="keeping telemetry")
        await self._watching.start()
        if self.exporter is not None:
            self.exporter.start()
        try:
            await self.receiver.start()
        except SeamlineError as error:  # another collector has the port: ours is told over the socket all the same
            _log.warning("%s", error)
        self._owner.spawn(self._intake.serve(intake), name="intake")
        self._owner.spawn(self._watch(), name="watching")

    async def stop(self) -> None:
        """Write down what has come, and close everything."""
        await self.receiver.stop()
        await self._owner.stop()
        await self._watching.stop()
        if self.exporter is not None:
            await self.exporter.stop(1.0)
        if self.store is not None:
            await asyncio.to_thread(self.store.close)
        self.reader.close()

    @property
    def incidents(self) -> Incidents:
        """Those that go on, and a hand on them."""
        return self._watching.incidents

    @property
    def promises(self) -> Promises:
        """How the SLOs stand."""
        return self._watching.detector.promises

    @property
    def troubles(self) -> list[str]:
        """What is not kept or not sent, and why, for people."""
        parts = (self.store, self.exporter)
        return [part.trouble for part in parts if part is not None and part.trouble]

    # What comes in.

    def _from_ours(self, batch: Batch) -> None:
        self.receiver.note(batch)
        self._take(batch)

    def _take(self, batch: Batch) -> None:
        if self.exporter is not None:
            self.exporter.add(batch)
        if self.store is not None:
            self.store.add(batch)
        self._windows.add(batch)
        self.totals.add(batch)
        if batch.logs and self.live.heard("logs"):
            self.live.tell("logs", batch.logs)
        for mark in batch.marks:
            self.live.tell("marks", mark)

    def _has_room(self) -> bool:
        return self.store is None or not self.store.full

    # What is made of it.

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                for window in self._windows.take():
                    self._look_at(window)
            except Exception:  # one window that cannot be read must not end the watching
                _log.exception("a window could not be looked at")

    def _look_at(self, window: Window) -> None:
        self.latest.append(window)
        self.live.tell("windows", window)
        self._watching.feed(window)
