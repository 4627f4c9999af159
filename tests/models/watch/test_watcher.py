"""A watcher: what it tells, what it keeps to itself, and what becomes of it in an incident."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.observe.synthetic import Shop

from seamline.kernel.clock import ManualClock
from seamline.kernel.signal.gauges import GAUGES, Gauges
from seamline.kernel.signal.measures import Measure
from seamline.models.watch.reference import Reference, Row
from seamline.models.watch.watcher import Watcher, level, watchers
from seamline.observe.detect.detector import SCORE_PREFIX, Detector
from seamline.observe.detect.words import title
from seamline.observe.incidents import Symptom
from seamline.run.application import Application
from seamline.run.host import Host

WINDOW_S = 300


def rows(dice: random.Random, count: int, *, grown: float = 1.0) -> list[Row]:
    return [
        {
            "amount": grown * dice.lognormvariate(4, 0.8),
            "orders": int(dice.expovariate(0.7)),
            "country": dice.choice(["BE", "BE", "BE", "NL", "FR"]),
            "score": dice.betavariate(1, 8),
        }
        for _ in range(count)
    ]


def watcher(clock: ManualClock, **options: int) -> Watcher:
    reference = Reference.of(rows(random.Random(0), 5000), quality={"auc": 0.9})
    return Watcher("decisions", "Fraud", "logistic-1", reference, clock, seed=1, **options)


def told(found: list[Measure]) -> dict[str, float]:
    assert all(each.name.startswith(f"{SCORE_PREFIX}Fraud.logistic-1.") for each in found)
    assert all(each.kind == "gauge" and each.module == "decisions" for each in found)
    return {each.name.removeprefix(f"{SCORE_PREFIX}Fraud.logistic-1."): each.value for each in found}


def test_what_is_as_it_was_is_told_as_no_change_and_what_is_not_by_its_size():
    """Amounts that grew by half are told, of the features that did not change nothing is."""
    watch, dice = watcher(ManualClock()), random.Random(1)
    for row in rows(dice, 1000):
        watch.saw(row)
    watch.compare()
    assert set(told(watch.take()).values()) == {0.0}
    for row in rows(dice, 1000, grown=1.5):
        watch.saw(row)
    watch.compare()
    found = told(watch.take())
    assert found.pop("drift.amount") in {0.1, 0.25}
    assert set(found.values()) == {0.0}
    assert watch.stats()["drift"]["amount"]["p"] < 1e-9


def test_a_drift_is_told_in_steps_that_are_not_left_for_a_little():
    """What wavers about a border stays where it was, up and down; what goes far takes the step; no drift is none."""
    assert [level(size) for size in (0.05, 0.1, 0.3, 0.9, 7.0)] == [0, 0.1, 0.25, 0.5, 1.0]
    told, seen = 0.0, list[float]()
    for size in (0.26, 0.24, 0.21, 0.49, 0.55, 0.62, 0.7, 0.45, 0.41, 0.3, 0.04):
        told = level(size, told)
        seen.append(told)
    assert seen == [0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5, 0.25, 0.0]


def test_what_is_unlike_its_training_from_the_start_is_a_change_from_nothing():
    """A watcher tells no drift from its first row on, so that the first window may be news."""
    watch = watcher(ManualClock())
    assert watch.take() == []
    watch.saw({"amount": 1})
    assert set(told(watch.take()).values()) == {0.0}


def test_a_feature_that_stops_coming_is_a_change():
    """A field that upstream renamed: all its values are missing."""
    watch = watcher(ManualClock())
    for row in rows(random.Random(1), 500):
        watch.saw({**row, "amount": None})
    assert watch.compare()["amount"].told == 1.0


async def test_windows_end_by_the_clock_and_hold_enough():
    """A window that is due waits for rows; the comparison is made in a thread, and told with a later telling."""
    clock = ManualClock()
    watch, dice = watcher(clock, window_s=WINDOW_S, rows_min=200), random.Random(1)
    for row in rows(dice, 150, grown=3.0):
        watch.saw(row)
    clock.advance(WINDOW_S + 1)
    watch.take()
    assert watch.stats()["rows"] == 150
    for row in rows(dice, 50, grown=3.0):
        watch.saw(row)
    watch.take()
    assert watch.stats()["rows"] == 0
    async with asyncio.timeout(20):
        while not watch.windows:
            watch.take()
            await asyncio.sleep(0)
    assert told(watch.take())["drift.amount"] > 0.2
    for row in rows(dice, 1000):
        watch.saw(row)
    watch.take()
    assert watch.stats()["rows"] == 1000, "the next is not due"


def test_memory_is_bounded_and_the_sample_is_fair():
    """Of 50,000 rows 2,000 are kept, from early and late alike; asking costs little."""
    watch = watcher(ManualClock())
    before = time.thread_time()
    for number in range(50_000):
        watch.saw({"orders": number})
    each_us = (time.thread_time() - before) / 50_000 * 1e6
    assert watch.stats()["rows"] == 2_000
    kept = sorted(int(row["orders"] or 0) for row in watch._rows)  # pyright: ignore[reportPrivateUsage]
    assert 23_000 < kept[1000] < 27_000
    assert each_us < 50


def test_a_score_is_told_as_its_reference_until_chance_does_not_explain_it():
    """An AUC two standard errors below is chance, eight is not, and a certain change of a hundredth does not matter."""
    watch = watcher(ManualClock())
    watch.measured("auc", 0.86, 0.02)
    assert told(watch.take())["auc"] == 0.9
    watch.measured("auc", 0.74, 0.02)
    assert told(watch.take())["auc"] == 0.74
    watch.measured("auc", 0.89, 0.0001)
    assert told(watch.take())["auc"] == 0.9
    watch.measured("grade", 0.7, 0.01)
    assert told(watch.take())["grade"] == 0.7, "without a reference the first is it"
    watch.measured("grade", 0.66, 0.01)
    assert told(watch.take())["grade"] == 0.7


def test_who_is_gone_tells_nothing():
    """A gauge is asked for as long as somebody holds it."""
    gauges = Gauges()

    class Shown:
        def take(self) -> list[Measure]:
            return [Measure("x", 1.0)]

    shown = Shown()
    gauges.add(shown)
    assert len(gauges.take()) == 1
    del shown
    assert gauges.take() == []
    watch = watcher(ManualClock())
    watch.measured("auc", 0.5, 0.001)
    assert any(each.name.endswith("Fraud.logistic-1.auc") for each in GAUGES.take())
    assert watch in watchers("Fraud")
    watch.close()
    assert watch not in watchers("Fraud")
    assert not any(each.name.endswith("Fraud.logistic-1.auc") for each in GAUGES.take())


def _symptoms(watch: Watcher, windows: Iterator[list[Row]]) -> Iterator[Symptom]:
    """What detection begins to notice while the watcher's windows pass; 150 of its own for each."""
    detector, shop = Detector(), Shop(3, habits=False, pages_per_s=0.001)
    for window in windows:
        for row in window:
            watch.saw(row)
        watch.compare()
        scores = {(each.name, each.module): each.value for each in watch.take()}
        for _ in range(WINDOW_S // 2):
            seen = shop.window()
            seen.points.update(scores)
            yield from (each for each in detector.feed(seen) if "Fraud" in each.series)


def test_a_drift_becomes_a_symptom_that_names_the_model_and_the_version():
    """After a calm hour amounts double: within two windows it is noticed, and its title says which model saw what."""
    dice = random.Random(5)
    calm = [rows(dice, 600) for _ in range(12)]
    begun = list(_symptoms(watcher(ManualClock()), iter(calm)))
    assert begun == []
    begun = list(
        _symptoms(watcher(ManualClock()), iter([*calm, rows(dice, 600, grown=2.0), rows(dice, 600, grown=2.0)]))
    )
    assert [each.what for each in begun] == ["drift"]
    said = title(begun, ["decisions"], everywhere=False)
    assert "Fraud.logistic-1.drift.amount rises" in said


def test_a_quiet_week_is_quiet():
    """672 windows of a quarter of an hour, four features each: nothing is told as a change. The chance of it is one in
    a million a window."""
    dice = random.Random(11)
    watch = watcher(ManualClock())
    changes = 0
    for _ in range(7 * 24 * 4):
        for row in rows(dice, 200):
            watch.saw(row)
        changes += any(each.told for each in watch.compare().values())
    assert changes == 0


@pytest.mark.parametrize("rows_each", [200, 1000])
def test_how_small_a_drift_is_noticed(rows_each: int):
    """Power: doubled amounts are noticed in nine of ten windows of 200 rows, half as much again in those of 1,000."""
    dice, watch, noticed = random.Random(13), watcher(ManualClock()), 0
    for _ in range(10):
        for row in rows(dice, rows_each, grown=2.0 if rows_each == 200 else 1.5):
            watch.saw(row)
        noticed += watch.compare()["amount"].told > 0
    assert noticed >= 9


async def test_a_process_tells_the_scores_of_its_models(tmp_path: Path):
    """What a watcher has found is among what the process measures; detection looks at that."""
    application = Application.load(Path(__file__).parents[1] / "shop_app")
    async with Host(application, data=tmp_path) as host:
        watch = watcher(ManualClock())
        watch.measured("auc", 0.5, 0.001)
        (found,) = [each for each in host.take_measures() if each.name == f"{SCORE_PREFIX}Fraud.logistic-1.auc"]
    assert (found.value, found.module, found.kind) == (0.5, "decisions", "gauge")
    assert found.attributes == {"seamline.model": "Fraud", "seamline.model.version": "logistic-1"}
