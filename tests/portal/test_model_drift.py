"""A model that is asked something else than before is an incident, from the call to the page: a module is called, what
its process measures is told, windows are looked at, and what they show is kept and drawn. Only time is moved."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import cast
from unittest.mock import patch

import pytest
from tests.portal.front import Front
from tests.portal.visitor import Visitor

from seamline.cli import app
from seamline.kernel.clock import ManualClock
from seamline.kernel.settings import Settings
from seamline.kernel.signal.metrics import Flow
from seamline.models.watch.watcher import watchers
from seamline.observe.live import Live
from seamline.observe.records import Batch, Side, Source, Traffic
from seamline.observe.store import TelemetryReader, TelemetryStore
from seamline.observe.watching import Watching
from seamline.observe.windows import Windows
from seamline.run.application import Application
from seamline.run.host import Host
from seamline.run.signals import as_point

CLERK = Path(__file__).parents[1] / "models" / "watch" / "clerk_app"
sys.path.insert(0, str(CLERK))

from clerk.desk import Desk  # noqa: E402  # it is found by then

STEP_S, CALLS = 2.0, 20
_FOLDER = "telemetry"


class Observed:
    """One process and who observes it, by a clock that is moved."""

    def __init__(self, host: Host, data: Path) -> None:
        settings = Settings.load(CLERK, {})
        self.data = data
        self.clock = ManualClock(datetime.now(UTC) - timedelta(minutes=8))
        self._host = host
        self._store = TelemetryStore(data / _FOLDER, settings.observe, self.clock)
        self._windows = Windows(settings.observe.window_s, self.clock)
        self._reader = TelemetryReader(data / _FOLDER)
        self.watching = Watching(settings, self._reader, self._store, Live(), self.clock)
        self._dice = random.Random(3)
        self._asked = 0

    async def start(self) -> None:
        self._store.start()
        await self.watching.start()

    async def stop(self) -> None:
        await self.watching.stop()
        self._store.close()
        self._reader.close()

    async def pass_by(self, windows: int, *, grown: float = 1.0) -> None:
        """The model is asked by way of a module, and what its process counts and measures is told, window by window."""
        desk = self._host.stub(Desk, "counter")
        for _ in range(windows):
            for _ in range(CALLS):
                amount = grown * self._dice.lognormvariate(4, 0.8)
                await desk.decide("case", "ada", amount, self._dice.choice(["BE", "NL"]))
            self._asked += CALLS
            await self._compared()
            self.clock.advance(STEP_S)
            at_ns = int(self.clock.now().timestamp() * 1e9)
            points = [as_point(each) for each in self._host.take_measures()]
            traffic = [as_told(each) for each in self._host.take_flows()]
            batch = Batch(Source("desk", 0, 1), at_ns, int(STEP_S * 1e9), points=points, traffic=traffic)
            self._store.add(batch)
            self._windows.add(batch)
            for window in self._windows.take():
                self.watching.feed(window)
            await self.watching.incidents.idle()

    async def _compared(self) -> None:
        """Every 200 calls are a window of the watcher's, which a thread compares."""
        (mild,) = [each for each in watchers("Risk") if each.version == "mild"]
        async with asyncio.timeout(60):
            while mild.windows < self._asked // 200:
                self._host.take_measures()
                await asyncio.sleep(0)


def as_told(flow: Flow) -> Traffic:
    """All calls took as long as all others, for the machine may be busy."""
    side = cast("Side", flow.side)
    return Traffic(
        flow.caller, flow.callee, flow.method, side, flow.calls, flow.errors, sum_ns=flow.calls * 1_000_000,
        histogram={40: flow.calls}, codes=flow.codes,
    )  # fmt: skip


@pytest.fixture
async def observed(tmp_path: Path) -> AsyncIterator[Observed]:
    async with Host(Application.load(CLERK), data=tmp_path) as host:
        found = Observed(host, tmp_path)
        await found.start()
        yield found
        await found.stop()


def cli(*words: str) -> str:
    with patch("sys.stdout", StringIO()) as said:
        assert app.run([*words]) == 0
    return said.getvalue()


async def test_a_drift_is_an_incident_that_the_verb_and_the_pages_show(observed: Observed, front: Front):
    """Calm is no incident, however long. When amounts grow, one opens within a minute; it names the model, its version
    and what moved, and not the country, which did not. `models drift`, `incidents` and the pages have it."""
    await observed.pass_by(60)
    assert observed.watching.incidents.open == []
    await observed.pass_by(30, grown=2.5)
    (incident,) = observed.watching.incidents.open
    noticed = {each.series for each in incident.symptoms}
    assert noticed == {"desk Risk.mild.drift.amount rises", "desk Risk.mild.drift.score rises"}
    assert "Risk.mild.drift" in incident.title
    assert [(each.module, each.kind) for each in incident.suspects[:1]] == [("desk", "drift")]
    assert "Risk.mild.drift" in incident.summary.text
    await observed.stop()

    place = ("--app", str(CLERK), "--data", str(observed.data))
    said = await asyncio.to_thread(cli, "models", "drift", "Risk", "--since", "15m", *place)
    lines = {line.split()[2]: line.split()[-1] for line in said.splitlines()[1:]}
    assert lines["drift.amount"] in {"0.5", "1"}
    assert lines["drift.country"] == "0"
    assert "Risk.mild.drift" in await asyncio.to_thread(cli, "incidents", "--since", "15m", *place)
    reader = TelemetryReader(observed.data / _FOLDER)
    front.show(dataclasses.replace(front.portal, reader=reader))
    visitor = Visitor(front)
    models, incidents = (await visitor.get("/models")).text, (await visitor.get("/incidents")).text
    reader.close()
    assert "drift.amount" in models
    assert "Risk.mild.drift" in incidents
