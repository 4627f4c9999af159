"""Features: what is served now, and what the join says was served then, are the same and know nothing of later."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seamline.events.streams import stream
from seamline.kernel.clock import ManualClock
from seamline.kernel.store import Database, sqlite_url
from seamline.models.features import (
    Case,
    FeatureSet,
    FeatureTable,
    Vector,
    count,
    distinct,
    keep,
    largest,
    last,
    mean,
    since_first,
    since_last,
    smallest,
    total,
)
from seamline.models.features import definition as definitions
from seamline.models.features.definition import Cell
from seamline.models.features.errors import FeatureDeclarationError, FeatureStateError
from seamline.module.module import Module
from seamline.module.values import Event

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Sold(Event, key="order"):
    order: str
    shopper: str
    cents: int
    country: str
    at: datetime


class Failed(Event, key="order"):
    order: str
    who: str
    at: datetime


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def sold(seconds: float, cents: int = 100, shopper: str = "ada", country: str = "BE") -> Sold:
    return Sold(order=f"{seconds}", shopper=shopper, cents=cents, country=country, at=at(seconds))


orders = stream(Sold, at=lambda e: e.at).by(shopper=lambda e: e.shopper)
failures = stream(Failed, at=lambda e: e.at).by(shopper=lambda e: e.who)
dear = stream(Sold, at=lambda e: e.at, where=lambda e: e.cents >= 1000).by(shopper=lambda e: e.shopper)
SHOPPER = FeatureSet(
    "shopper",
    orders_60s=count(orders, within_s=60),
    cents_60s=total(orders, lambda e: e.cents, within_s=60),
    mean_300s=mean(orders, lambda e: e.cents, within_s=300),
    most_300s=largest(orders, lambda e: e.cents, within_s=300),
    least_300s=smallest(orders, lambda e: e.cents, within_s=300),
    countries_300s=distinct(orders, lambda e: e.country, within_s=300),
    country=last(orders, lambda e: e.country, within_s=300),
    since_s=since_last(orders, within_s=300),
    known_s=since_first(orders, within_s=300),
    failed_60s=count(failures, within_s=60),
    dear_300s=count(dear, within_s=300),
)


class Rig:
    def __init__(self, database: Database, features: FeatureSet = SHOPPER, keep_s: float = 3600) -> None:
        self.db = database
        self.clock = ManualClock(START)
        self.table = FeatureTable(features, keep_s=keep_s)

    async def take(self, *events: Event) -> None:
        await self.table.take(self.db, self.clock, events)

    async def now(self, entity: str = "ada") -> Vector:
        return await self.table.now(self.db, self.clock, entity)

    async def then(self, *cases: Case) -> list[Vector]:
        return await self.table.at(self.db, cases)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig]:
    async with Database(sqlite_url(tmp_path, "shop"), "shop") as database:
        rig = Rig(database)
        await rig.table.prepare(database, rig.clock)
        yield rig


async def test_each_feature_is_what_it_says(rig: Rig):
    """By hand: windows hold the moment asked about and not the one a window's length before it."""
    assert (await rig.now()).values == {
        "orders_60s": 0, "cents_60s": 0, "mean_300s": None, "most_300s": None, "least_300s": None, "countries_300s": 0,
        "country": None, "since_s": None, "known_s": None, "failed_60s": 0, "dear_300s": 0,
    }  # fmt: skip
    rig.clock.advance(100)
    await rig.take(
        sold(40, 1000, country="NL"), sold(41, 300), sold(100, 200), sold(90, shopper="bo"), sold(101, 9),
        Failed(order="1", who="ada", at=at(99)),
    )  # fmt: skip
    assert (await rig.now()).values == {
        "orders_60s": 2, "cents_60s": 500, "mean_300s": 500.0, "most_300s": 1000, "least_300s": 200,
        "countries_300s": 2, "country": "BE", "since_s": 0.0, "known_s": 60.0, "failed_60s": 1, "dear_300s": 1,
    }  # fmt: skip
    rig.clock.advance(1)
    assert (await rig.now()).values["orders_60s"] == 2, "what lay a second ahead counts now, and another has left"


async def test_what_comes_late_counts_from_then_on_and_not_before(rig: Rig):
    """An order of second 10 is heard of at 50: who decided at 30 did not know it, with or without what was noted."""
    rig.clock.advance(30)
    served = await rig.now()
    rig.clock.advance(20)
    await rig.take(sold(10))
    assert (await rig.now()).values["orders_60s"] == 1
    exact, by_clock, now = await rig.then(
        Case("ada", served.at, served.seen), Case("ada", served.at), Case("ada", rig.clock.now())
    )
    assert exact.values == by_clock.values == served.values
    assert now.values["orders_60s"] == 1


async def test_two_decisions_of_one_millisecond_are_told_apart(rig: Rig):
    """By the clock they are one moment; what each had seen is another."""
    rig.clock.advance(5)
    first = await rig.now()
    await rig.take(sold(5))
    second = await rig.now()
    found = await rig.then(Case("ada", first.at, first.seen), Case("ada", second.at, second.seen))
    assert [each.values["orders_60s"] for each in found] == [0, 1]


async def test_a_set_made_anew_counts_the_past_as_known_when_it_happened(rig: Rig):
    """Backfill: events from before the set was made are joined as if it had been there."""
    again = FeatureTable(FeatureSet("shopper", version=2, **SHOPPER.features), keep_s=3600)
    rig.clock.advance(1000)
    await again.prepare(rig.db, rig.clock)
    await again.take(rig.db, rig.clock, [sold(100), sold(900)])
    found = await again.at(rig.db, [Case("ada", at(99)), Case("ada", at(100)), Case("ada", at(930))])
    assert [each.values["orders_60s"] for each in found] == [0, 1, 1]
    assert [each.values["known_s"] for each in found] == [None, 0.0, 30.0]
    assert (await rig.now()).values["orders_60s"] == 0, "the other version is another"


async def test_nothing_is_kept_for_ever_and_what_is_gone_is_said(rig: Rig):
    """Older than an hour goes; a question that needs it is answered as incomplete; what comes so late is counted."""
    await rig.take(sold(-3500), sold(0))
    rig.clock.advance(3000)
    await rig.take(sold(2999), sold(-700))
    assert (await rig.table.stats(rig.db, rig.clock))["late"] == 1
    early, recent = await rig.then(Case("ada", at(-3490)), Case("ada", at(3000)))
    assert (early.complete, recent.complete) == (False, True)
    assert recent.values["orders_60s"] == 1
    await rig.take(sold(-650))
    assert (await rig.table.stats(rig.db, rig.clock))["late"] == 2, "nor does it come back into a window that is gone"


async def test_how_fresh_they_are_is_said(rig: Rig):
    """The newest by event time, and since when nothing was heard."""
    assert (await rig.table.stats(rig.db, rig.clock))["quiet_s"] is None
    rig.clock.advance(10)
    await rig.take(sold(4))
    rig.clock.advance(7)
    told = await rig.table.stats(rig.db, rig.clock)
    assert (told["newest_ms"], told["quiet_s"]) == (round(at(4).timestamp() * 1000), 7.0)


async def test_one_bad_event_harms_no_other(rig: Rig, caplog: pytest.LogCaptureFixture):
    """A function of a feature fails on it; it is left out, counted and said."""
    inverse = FeatureSet("inverse", each=total(orders, lambda e: 1 / e.cents, within_s=60))
    table = FeatureTable(inverse, keep_s=3600)
    await table.prepare(rig.db, rig.clock)
    await table.take(rig.db, rig.clock, [sold(0, 2), sold(0, 0), sold(0, 4)])
    assert (await table.now(rig.db, rig.clock, "ada")).values == {"each": 0.75}
    assert (await table.stats(rig.db, rig.clock))["failed"] == 1
    assert "division by zero" in caplog.text


async def test_who_is_forgotten_has_no_past(rig: Rig):
    """All of an entity's rows go, nobody else's."""
    await rig.take(sold(0), sold(0, shopper="bo"))
    assert await rig.table.forget(rig.db, "ada") == 1
    assert (await rig.now("ada")).values["orders_60s"] == 0
    assert (await rig.now("bo")).values["orders_60s"] == 1


async def test_of_a_busy_entity_the_newest_events_count(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    """The same ones online and offline, however many there are."""
    monkeypatch.setattr("seamline.models.features.definition.ROWS_MAX", 20)
    monkeypatch.setattr("seamline.models.features.table._NOW", _limited(20))
    rig.clock.advance(100)
    await rig.take(*(sold(50 + number) for number in range(40)))
    served = await rig.now()
    assert served.values["orders_60s"] == 20
    assert [each.values for each in await rig.then(Case("ada", served.at, served.seen))] == [served.values]


def _limited(most: int) -> object:
    from seamline.models.features import table

    return table._NOW.limit(most)  # pyright: ignore[reportPrivateUsage]


async def test_a_declaration_that_changed_is_not_mixed_with_what_is_stored(rig: Rig):
    """Another window under the same version is refused, with the remedy."""
    changed = FeatureSet("shopper", orders_60s=count(orders, within_s=90))
    with pytest.raises(FeatureStateError, match=r"SL7762.*version=2"):
        await FeatureTable(changed, keep_s=3600).prepare(rig.db, rig.clock)


def test_what_cannot_work_is_refused_when_it_is_declared():
    """No key, two keys, no window, no features, kept for less than a window."""
    two = stream(Sold, at=lambda e: e.at).by(shopper=lambda e: e.shopper, country=lambda e: e.country)
    for bad in (stream(Sold, at=lambda e: e.at), two):
        with pytest.raises(FeatureDeclarationError, match="SL7761"):
            FeatureSet("bad", each=count(bad, within_s=1))
    with pytest.raises(FeatureDeclarationError, match="the same one"):
        FeatureSet("bad", one=count(orders, within_s=1), other=count(two, within_s=1))
    with pytest.raises(FeatureDeclarationError, match="above 0"):
        count(orders, within_s=0)
    with pytest.raises(FeatureDeclarationError, match="are 0"):
        FeatureSet("bad")
    with pytest.raises(FeatureDeclarationError, match="look back 300 s"):
        keep(Module("shop"), SHOPPER, keep_s=200)


# The property.


class Step(NamedTuple):
    """Time passes, an event arrives (late by ``late_s``), or somebody asks."""

    passes_s: int
    late_s: int
    shopper: str
    cents: int
    asks: bool


steps = st.lists(
    st.builds(
        Step,
        st.integers(0, 90),
        st.one_of(st.just(0), st.integers(-20, 400)),
        st.sampled_from(["ada", "bo"]),
        st.sampled_from([1, 50, 1000, 2500]),
        st.booleans(),
    ),
    max_size=30,
)


class Told(NamedTuple):
    """An event, and when it was known."""

    event: Sold
    known: datetime


def oracle(history: Sequence[Told], entity: str, moment: datetime) -> dict[str, Cell]:
    """The features by their words, from the whole history."""
    known = sorted(
        (each for each in history if each.event.shopper == entity and each.event.at <= moment and each.known <= moment),
        key=lambda each: each.event.at,
    )

    def within(seconds: int) -> list[Sold]:
        return [each.event for each in known if each.event.at > moment - timedelta(seconds=seconds)]

    minute, five = within(60), within(300)
    cents = [each.cents for each in five]
    return {
        "orders_60s": len(minute),
        "cents_60s": sum(each.cents for each in minute),
        "mean_300s": sum(cents) / len(cents) if cents else None,
        "most_300s": max(cents, default=None),
        "least_300s": min(cents, default=None),
        "countries_300s": len({each.country for each in five}),
        "country": five[-1].country if five else None,
        "since_s": (moment - five[-1].at).total_seconds() if five else None,
        "known_s": (moment - five[0].at).total_seconds() if five else None,
        "failed_60s": 0,
        "dear_300s": sum(each.cents >= 1000 for each in five),
    }


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
async def test_what_is_joined_later_is_what_was_served_and_nothing_leaks(history: list[Step]):
    """Random histories, with events that come out of order and from the future. Each answer is the oracle's, which sees
    the past only; the join gives each again when all is over, by what was seen and by the clock; and again when sixty
    more events of the same past have come in after all."""
    with tempfile.TemporaryDirectory() as folder:
        async with Database(sqlite_url(Path(folder), "shop"), "shop") as database:
            rig = Rig(database)
            await rig.table.prepare(database, rig.clock)
            rig.clock.advance(500)  # what happened before there was a set is another matter
            told: list[Told] = []
            served: list[Vector] = []
            for number, step in enumerate(history):
                rig.clock.advance(step.passes_s + 0.001)
                if step.asks:
                    vector = await rig.now(step.shopper)
                    assert vector.values == oracle(told, step.shopper, vector.at)
                    served.append(vector)
                    rig.clock.advance(0.001)
                    continue
                event = Sold(
                    order=str(number),
                    shopper=step.shopper,
                    cents=step.cents,
                    country="BE" if number % 3 else "NL",
                    at=rig.clock.now() - timedelta(seconds=step.late_s, milliseconds=number),
                )
                told.append(Told(event, rig.clock.now()))
                await rig.take(event)
            exact = await rig.then(*(Case(each.entity, each.at, each.seen) for each in served))
            by_clock = await rig.then(*(Case(each.entity, each.at) for each in served))
            assert [each.values for each in exact] == [each.values for each in served]
            assert [each.values for each in by_clock] == [each.values for each in served]
            await rig.take(*(sold(rig_s, 7, "ada", "FR") for rig_s in range(1, 3000, 50)))
            later = await rig.then(*(Case(each.entity, each.at, each.seen) for each in served))
            assert [each.values for each in later] == [each.values for each in served]


def test_a_history_without_a_database_gives_the_same_features():
    """For training: each case sees what happened before it, whatever else the history has."""
    history = [sold(second, cents=second) for second in range(1, 400, 7)]
    cases = [Case("ada", at(second)) for second in (0, 1, 59, 200, 400)]
    whole = SHOPPER.of_history(history, cases)
    for case, vector in zip(cases, whole, strict=True):
        before = [Told(each, each.at) for each in history if each.at <= case.at]
        assert vector.values == oracle(before, "ada", case.at)
    assert len(history) < definitions.ROWS_MAX
