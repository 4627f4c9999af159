"""Detection, explanation and notices, put together as the settings want them, over one store.

Nothing of it ends what goes on around it: where the past cannot be read or nobody can be told, that is logged, and the
watching goes on without.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

from seamline.kernel.clock import Clock
from seamline.kernel.errors import SeamlineError
from seamline.kernel.settings import Settings
from seamline.kernel.settings.observe import SloSettings
from seamline.observe.detect.detector import Detector
from seamline.observe.detect.keeping import BEFORE_MAX, Incidents
from seamline.observe.explain import Explanation, Model, explain, summarise
from seamline.observe.explain.sources import Sources
from seamline.observe.incidents import Incident, Symptom
from seamline.observe.live import Live
from seamline.observe.notify import Notifier
from seamline.observe.records import Mark
from seamline.observe.store import TelemetryReader, TelemetryStore
from seamline.observe.store.query import SeriesQuery
from seamline.observe.windows import Window

_SLO_STEP_NS: Final = 300_000_000_000
_DAY_NS: Final = 86_400_000_000_000
_HOUR_NS: Final = 3_600_000_000_000
_SEASON_WEEKS: Final = 6
_log = logging.getLogger("seamline.observe")


class Watching:
    """Looks at each window, keeps incidents and tells of them."""

    def __init__(
        self,
        settings: Settings,
        reader: TelemetryReader,
        store: TelemetryStore | None,
        live: Live,
        clock: Clock,
        *,
        address: str = "",
    ) -> None:
        observe = settings.observe
        self._observe = observe
        self._reader = reader
        self._sources = Sources(reader)
        self._clock = clock
        self._notifier = _notifier(settings, clock, address)
        model = Model(observe.model, observe.model_name, observe.model_key) if observe.model else None
        self.detector = Detector(observe)
        self.incidents = Incidents(
            self.detector,
            explain=self._explain,
            summarise=partial(summarise, model=model),
            store=store,
            notify=self._notifier,
            show=partial(live.tell, "incidents"),
        )

    async def start(self) -> None:
        """Go on where the last observer ended."""
        if self._notifier is not None:
            self._notifier.start()
        try:
            known, past = await asyncio.to_thread(self._remember)
        except SeamlineError as error:  # a first start, or a store that cannot be read: there is no past
            _log.info("%s", error)
            return
        self.incidents.resume(known, past)

    def feed(self, window: Window) -> None:
        self.incidents.feed(window)

    async def stop(self) -> None:
        await self.incidents.stop()
        if self._notifier is not None:
            await self._notifier.stop()

    def _remember(self) -> tuple[list[Incident], list[Window]]:
        now_ns = int(self._clock.now().timestamp() * 1e9)
        known = self._reader.incidents()
        since_ns = now_ns - int(BEFORE_MAX * self._observe.window_s * 1e9)
        for name, slo in self._observe.slos.items():
            self.detector.promises.remember(name, self._answers(slo, now_ns))
        weeks_ago_ns = now_ns - _SEASON_WEEKS * 7 * _DAY_NS
        door = self._reader.red(
            SeriesQuery(side="http", since_ns=weeks_ago_ns, until_ns=now_ns - now_ns % _HOUR_NS, step_ns=_HOUR_NS)
        )
        self.detector.visitors.season.learn(
            (at_ns, count or 0.0) for at_ns, count in zip(door.at_ns, door.columns["calls"], strict=True)
        )
        return known, self._reader.windows(since_ns, now_ns)

    def _answers(self, slo: SloSettings, now_ns: int) -> list[tuple[int, int, int]]:
        """Begin, good and bad of the past; of what was too slow only the failures are known."""
        kind, colon, name = slo.target.partition(":")
        since_ns = now_ns - int(slo.window_days * _DAY_NS)
        asked = SeriesQuery(
            callee=name if colon else "",
            method="" if colon else slo.target,
            side="http" if kind == "http" and colon else "client",
            since_ns=since_ns,
            until_ns=now_ns,
            step_ns=_SLO_STEP_NS,
        )
        found = self._reader.red(asked)
        rows = zip(found.at_ns, found.columns["calls"], found.columns["errors"], strict=True)
        return [(at_ns, int((calls or 0) - (bad or 0)), int(bad or 0)) for at_ns, calls, bad in rows]

    def _explain(
        self, before: Sequence[Window], after: Sequence[Window], symptoms: Sequence[Symptom], marks: Sequence[Mark]
    ) -> Explanation:
        return explain(before, after, symptoms, marks, self._sources.traces, self._sources.profile)


def _notifier(settings: Settings, clock: Clock, address: str) -> Notifier | None:
    observe = settings.observe
    if not observe.notify:
        return None
    try:
        return Notifier(
            observe.notify, app=settings.app.name, secret=observe.notify_secret, portal=address, clock=clock
        )
    except SeamlineError as error:
        _log.error("nobody is told of incidents: %s", error)  # the sentence says all
        return None
