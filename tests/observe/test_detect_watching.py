"""Windows in, incidents explained, kept and shown; after a restart it goes on where it was."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, cast

import pytest
from tests.observe.receiver import receiving
from tests.observe.synthetic import BEGIN_NS, Fault, Shop

from seamline.kernel.clock import ManualClock
from seamline.kernel.settings import Settings
from seamline.observe.live import Live
from seamline.observe.records import Batch, Side, Source, Traffic
from seamline.observe.store import TelemetryReader, TelemetryStore
from seamline.observe.watching import Watching
from seamline.observe.windows import Window

PORTAL = "http://127.0.0.1:8099"
FAULT = Fault("errors", "payments", 0.9, 200, 320)


def settings(folder: Path, observe: str = "") -> Settings:
    (folder / "seamline.toml").write_text(f'[app]\nname = "shop"\nmodules = []\n[observe]\n{observe}\n')
    return Settings.load(folder, {})


def batch(window: Window) -> Batch:
    """The same as a process would tell it."""
    traffic = [
        Traffic(
            key[0],
            key[1],
            key[2],
            cast("Side", key[3]),
            flow.calls,
            flow.errors,
            0,
            0,
            flow.sum_ns,
            flow.histogram,
            flow.codes,
        )
        for key, flow in window.edges.items()
    ]
    return Batch(Source("shop", 0, 1), window.end_ns - 1, window.length_ns - 1, traffic=traffic)


class Rig:
    def __init__(self, folder: Path, shop: Shop, observe: str = "") -> None:
        self.shop = shop
        self.clock = ManualClock(datetime.fromtimestamp(BEGIN_NS / 1e9 + shop.now_s, UTC))
        made = settings(folder, observe)
        self.store = TelemetryStore(folder / "telemetry", made.observe, self.clock)
        self.reader = TelemetryReader(folder / "telemetry")
        self.live = Live()
        self.watching = Watching(made, self.reader, self.store, self.live, self.clock, address=PORTAL)

    async def __aenter__(self) -> Self:
        self.store.start()
        await self.watching.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.watching.stop()
        self.store.close()
        self.reader.close()

    async def run(self, until_s: float) -> None:
        while self.shop.now_s < until_s:
            window = self.shop.window()
            self.store.add(batch(window))
            self.watching.feed(window)
            self.clock.advance(2)
            await self.watching.incidents.idle()


async def test_a_fault_is_noticed_explained_kept_and_shown_and_survives_a_restart(tmp_path: Path):
    """Within thirty seconds the right module stands first; the next observer closes what the last one opened."""
    shop = Shop(3, habits=False, faults=(FAULT,))
    async with Rig(tmp_path, shop, '[observe.slos.checkout]\ntarget = "Checkout.place"') as rig:
        with rig.live.listen("incidents") as news:
            await rig.run(230)
            assert not news.empty()
        (incident,) = rig.watching.incidents.open
        assert incident.explained_ns - BEGIN_NS <= 230e9
        assert (incident.abstained, incident.suspects[0].module) == (False, "payments")
        assert "payments" in incident.summary.text
    async with Rig(tmp_path, shop, '[observe.slos.checkout]\ntarget = "Checkout.place"') as again:
        assert [each.id for each in again.watching.incidents.open] == ["INC-1"]
        (state,) = again.watching.detector.promises.states()
        assert state.bad > 3, "what failed before the restart is known"
        await again.run(480)
        assert not again.watching.incidents.open
    reader = TelemetryReader(tmp_path / "telemetry")
    kept = await asyncio.to_thread(reader.incidents)
    reader.close()
    assert [(each.id, each.status) for each in kept] == [("INC-1", "closed")]


async def test_who_is_told_is_led_to_the_portal(tmp_path: Path):
    """The message says where the evidence can be looked at."""
    shop = Shop(3, habits=False, faults=(FAULT,))
    async with receiving() as receiver:
        observe = f'notify = ["{receiver.url}"]\nnotify_secret = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"'
        async with Rig(tmp_path, shop, observe) as rig:
            await rig.run(230)
            async with asyncio.timeout(20):
                while not receiver.got:  # noqa: ASYNC110  # what another side does is waited for
                    await asyncio.sleep(0.005)
    assert f"{PORTAL}/incidents/INC-1" in json.loads(receiver.got[0][1])["data"]["text"]


async def test_without_a_store_incidents_are_found_all_the_same(tmp_path: Path):
    """Nothing is remembered, and traces and profiles are not asked for in vain."""
    made = settings(tmp_path, "store = false")
    reader = TelemetryReader(tmp_path / "nothing")
    watching = Watching(made, reader, None, Live(), ManualClock())
    await watching.start()
    shop = Shop(3, habits=False, faults=(FAULT,))
    while shop.now_s < 230:
        watching.feed(shop.window())
        await watching.incidents.idle()
    (incident,) = watching.incidents.open
    assert incident.suspects[0].module == "payments"
    await watching.stop()
    reader.close()


async def test_a_receiver_that_cannot_be_used_is_said_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Its address is not repeated."""
    with caplog.at_level(logging.ERROR):
        async with Rig(tmp_path, Shop(3), 'notify = ["https://hooks.example.org/verysecret"]') as rig:
            await rig.run(4)
    assert "SL7620" in caplog.text
    assert "verysecret" not in caplog.text
