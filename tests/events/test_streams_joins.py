"""Two streams meet in the order of event time, whatever the order in which they come."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from tests.events.stream_rig import Filled, Rig, Sold, filled, rig, sold

from seamline.events.streams import Pair, count, stream, tumbling
from seamline.events.streams.errors import StreamStateError
from seamline.events.streams.stream import Definition

__all__ = ["rig"]

carts = stream(Filled, at=lambda e: e.at, where=lambda e: e.pieces > 0).by(shopper=lambda e: e.shopper)
orders = stream(Sold, at=lambda e: e.at).by(shopper=lambda e: e.shopper)
COLUMNS = "(start_ms - :zero) / 1000, baskets, ordered, closed"


def conversion(*, latest: bool = True, within_s: float = 100) -> Definition[Pair[Filled, Sold]]:
    pairs = carts.join(orders, within_s=within_s, kind="left", latest=latest)
    return pairs.window(tumbling(60)).aggregate(baskets=count(), ordered=count(lambda pair: pair.right is not None))


async def test_an_inner_join_pairs_what_is_near_enough(rig: Rig):
    """Each with each of the same key, bounds included."""
    pairs = carts.join(orders, within_s=10, before_s=5)
    await rig.view("v", pairs.by(shopper=lambda p: p.left.shopper).window(tumbling(1000)).aggregate(pairs=count()))
    await rig.take(filled(100), filled(100, "bob"))
    await rig.take(sold(94.9), sold(95), sold(104), sold(110), sold(110.1), sold(103, shopper="eve"))
    await rig.take(filled(500), sold(500))
    assert await rig.rows("v", "shopper, pairs") == [("ada", 3)]
    assert await rig.many("seamline_stream_joins") == 2


async def test_a_left_join_tells_of_what_never_came(rig: Rig):
    """A basket of which the order comes is converted; one without is abandoned once its time is up, not before."""
    await rig.view("v", conversion())
    await rig.take(filled(0), filled(10, "bob"), sold(50))
    await rig.take(filled(100, "eve"), sold(100, shopper="nobody"))
    assert await rig.rows("v", COLUMNS) == [(0, 1, 1, 0)]
    await rig.take(filled(120, "eve"), sold(120, shopper="nobody"))
    assert await rig.rows("v", COLUMNS) == [(0, 2, 1, 0)]
    await rig.take(filled(400, "zoe"), sold(400, shopper="zoe"))
    assert await rig.rows("v", COLUMNS) == [(0, 2, 1, 1), (120, 1, 0, 1)]


async def test_only_the_last_change_of_a_basket_waits_for_its_order(rig: Rig):
    """And once it was ordered, the next basket is another."""
    await rig.view("v", conversion())
    await rig.take(filled(0), filled(5), filled(10), sold(20), filled(30), sold(40), sold(41))
    await rig.take(filled(500), sold(500))
    assert await rig.rows("v", COLUMNS) == [(0, 2, 2, 1)]


async def test_the_order_of_arrival_makes_no_difference():
    """Any shuffling within what may be out of order, in any batches, gives the same rows."""
    lots = random.Random(11)
    events = [filled(lots.randrange(300), f"s{lots.randrange(6)}") for _ in range(80)]
    events_right = [sold(lots.randrange(300), shopper=f"s{lots.randrange(6)}") for _ in range(40)]
    found: list[list[tuple[object, ...]]] = []
    patient_carts = stream(Filled, at=lambda e: e.at, out_of_order_s=400).by(shopper=lambda e: e.shopper)
    patient_orders = stream(Sold, at=lambda e: e.at, out_of_order_s=400).by(shopper=lambda e: e.shopper)
    pairs = patient_carts.join(patient_orders, within_s=50, kind="left", latest=True)
    definition = pairs.window(tumbling(60)).aggregate(
        baskets=count(), ordered=count(lambda pair: pair.right is not None)
    )
    for _ in range(4):
        arriving = [*events, *events_right]
        lots.shuffle(arriving)
        with tempfile.TemporaryDirectory() as folder:
            async with Rig.on_sqlite(Path(folder)) as rig:
                await rig.view("v", definition)
                while arriving:
                    many = lots.randint(1, 30)
                    await rig.take(*arriving[:many])
                    del arriving[:many]
                await rig.take(filled(2000, "end"), sold(2000, shopper="end"))
                found.append(await rig.rows("v", COLUMNS))
    assert found[1:] == found[:-1]
    assert sum(row[1] for row in found[0] if isinstance(row[1], int)) > 20


async def test_what_the_join_has_passed_is_late_and_put_aside(rig: Rig):
    await rig.view("v", conversion())
    await rig.take(filled(100), sold(100, shopper="bob"))
    await rig.take(sold(90))
    assert await rig.aside() == [("late", "Sold", 90_000)]


async def test_a_side_of_which_nothing_was_heard_holds_the_other_until_it_is_idle(rig: Rig):
    """A replay that reads one side first does not find the other late."""
    rig.now(1000)
    await rig.view("v", conversion())
    await rig.take(filled(0), filled(900, "bob"))
    await rig.take(sold(50))
    await rig.take(sold(60, shopper="nobody"))
    assert await rig.rows("v", COLUMNS) == [(0, 1, 1, 0)]
    assert await rig.aside() == []


async def test_a_basket_is_abandoned_by_the_clock_when_nothing_more_comes(rig: Rig):
    rig.now(0)
    await rig.view("v", conversion(within_s=60))
    await rig.take(filled(0))
    rig.now(60)
    await rig.tick()
    assert await rig.rows("v", COLUMNS) == []
    rig.now(75)
    await rig.tick()
    assert await rig.rows("v", COLUMNS) == [(0, 1, 0, 0)]
    rig.now(135)
    await rig.tick()
    assert await rig.rows("v", COLUMNS) == [(0, 1, 0, 1)]


async def test_what_waits_is_bounded_by_its_time(rig: Rig):
    await rig.view("v", conversion(within_s=20))
    for second in range(0, 2000, 10):
        await rig.take(filled(second, f"s{second}"), sold(second, shopper=f"t{second}"))
    assert await rig.many("seamline_stream_joins") < 12


async def test_a_kept_event_that_no_longer_fits_the_code_says_what_to_do(rig: Rig):
    from sqlalchemy import text

    await rig.view("v", conversion())
    await rig.take(filled(0))
    async with rig.db.transaction() as connection:
        await connection.execute(text("UPDATE seamline_stream_joins SET event = 'Gone'"))
    with pytest.raises(StreamStateError, match="Raise `version="):
        await rig.take(filled(100), sold(100))
