"""A batch is in the order in which events came, whatever their keys: what counts by time relies on it."""

from __future__ import annotations

import random

from seamline.events.lanes import Lanes, Parcel
from seamline.events.record import Record
from seamline.events.transport import Delivery
from seamline.module.values import Event


class Ticked(Event):
    n: int


def parcel(n: int, key: str) -> Parcel:
    record = Record(id=str(n), source="clock", type="Ticked", data=b"{}", time_ms=n, key=key)
    return Parcel(Delivery(record, "clock", 0, str(n)), Ticked(n=n))


def numbers(parcels: list[Parcel]) -> list[int]:
    return [int(each.delivery.record.id) for each in parcels]


def test_a_batch_takes_what_came_first_across_keys():
    """A busy key does not bring its later events before the earlier ones of others."""
    lanes, lots = Lanes(), random.Random(1)
    for n in range(1000):
        lanes.add(parcel(n, lots.choice(["", "busy", "busy", *(f"k{each}" for each in range(20))])))
    seen: list[int] = []
    while batch := lanes.take(300):
        seen += numbers(batch)
        lanes.free(batch)
    assert seen == list(range(1000))
    assert len(lanes) == 0


def test_what_is_at_work_holds_its_keys_and_nobody_else():
    lanes = Lanes()
    for n, key in enumerate("abacbd"):
        lanes.add(parcel(n, key))
    first = lanes.take(2)
    assert numbers(first) == [0, 1]
    assert numbers(lanes.take(10)) == [3, 5]
    assert lanes.take(10) == []
    lanes.free(first)
    assert numbers(lanes.take(10)) == [2, 4]


def test_what_failed_in_a_batch_comes_again_alone_and_in_order():
    lanes = Lanes()
    for n, key in enumerate("abab"):
        lanes.add(parcel(n, key))
    batch = lanes.take(10)
    for each in batch:
        each.alone = True
    assert lanes.put_back(batch, rest=False)
    seen: list[list[int]] = []
    while batch := lanes.take(10):
        seen.append(numbers(batch))
        lanes.free(batch)
    assert seen == [[0], [1], [2], [3]]
