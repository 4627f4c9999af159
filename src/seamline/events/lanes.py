"""The order in which a consumer handles what it has fetched: one lane for each key.

A lane is at work on one event, or one batch, at a time; so events of a key keep their order, and a lane that rests
after a failure holds up nobody else.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heapreplace

from seamline.events.errors import EventDecodeError
from seamline.events.transport import Delivery
from seamline.module.values import Event


class Parcel:
    """A delivery on its way through a consumer, with its event, or with what is wrong with it."""

    __slots__ = ("alone", "attempts", "delivery", "event", "first_ms", "lane", "place", "unsent")

    def __init__(self, delivery: Delivery, event: Event | EventDecodeError) -> None:
        self.delivery = delivery
        self.event = event
        self.attempts = 0
        self.unsent = 0
        """Tries that came to nothing because a callee was not there; they are no attempts."""
        self.first_ms = 0
        self.alone = isinstance(event, EventDecodeError)
        """Not to be handled with others: it was in a batch that failed, or will fail."""
        self.lane: Lane | None = None
        self.place = 0
        """How many came before it."""


class Lane:
    """Events of one key, in order."""

    __slots__ = ("key", "resting", "waiting", "working")

    def __init__(self, key: str) -> None:
        self.key = key
        self.waiting: deque[Parcel] = deque()
        self.working = False
        self.resting = False


class Lanes:
    """All lanes of one consumer."""

    def __init__(self) -> None:
        self._by_key: dict[str, Lane] = {}
        self._ready: deque[Lane] = deque()
        self._closed = False
        self._come = 0
        self.waiting = 0
        """Events that could be handled as soon as there is somebody to do it, or their lane is free."""
        self.resting = 0
        """Events behind one that failed."""
        self.working = 0
        self.held_bytes = 0

    def __len__(self) -> int:
        return self.waiting + self.resting + self.working

    def add(self, parcel: Parcel) -> None:
        """At the end of its key's lane; what has no key has a lane of its own."""
        self.held_bytes += len(parcel.delivery.record.data)
        key = parcel.delivery.record.key
        lane = self._by_key.get(key) if key else None
        if lane is None:
            lane = Lane(key)
            if key:
                self._by_key[key] = lane
        parcel.lane = lane
        parcel.place = self._come
        self._come += 1
        if not lane.waiting and not lane.working and not lane.resting:
            self._ready.append(lane)
        lane.waiting.append(parcel)
        if lane.resting:
            self.resting += 1
        else:
            self.waiting += 1

    def take(self, parcels_max: int) -> list[Parcel]:
        """The next to be handled together, in the order in which they came; their lanes are at work until
        :meth:`free`."""
        ready = self._ready
        taken: list[Parcel] = []
        if parcels_max == 1 and ready:
            lane = ready.popleft()
            lane.working = True
            taken.append(lane.waiting.popleft())
        elif ready:
            self._take_batch(taken, parcels_max)
        self.waiting -= len(taken)
        self.working += len(taken)
        return taken

    def _take_batch(self, taken: list[Parcel], parcels_max: int) -> None:
        heads = [(lane.waiting[0].place, lane) for lane in self._ready]
        heapify(heads)
        while heads and len(taken) < parcels_max:
            lane = heads[0][1]
            if lane.waiting[0].alone:
                if taken:
                    break
                parcels_max = 1
            lane.working = True
            taken.append(lane.waiting.popleft())
            if lane.waiting:
                heapreplace(heads, (lane.waiting[0].place, lane))
            else:
                heappop(heads)
        self._ready = deque(lane for lane in self._ready if not lane.working)

    def free(self, parcels: list[Parcel]) -> None:
        """These were dealt with: their lanes go on."""
        self.working -= len(parcels)
        self.held_bytes -= sum(len(parcel.delivery.record.data) for parcel in parcels)
        for lane in _lanes_of(parcels):
            lane.working = False
            self._go_on(lane)

    def put_back(self, parcels: list[Parcel], *, rest: bool) -> list[Lane]:
        """These failed, and come first when their lanes go on: after :meth:`wake` with ``rest``, else at once."""
        self.working -= len(parcels)
        if self._closed:
            return []
        self.waiting += len(parcels)
        for parcel in reversed(parcels):
            assert parcel.lane is not None
            parcel.lane.waiting.appendleft(parcel)
        lanes = _lanes_of(parcels)
        for lane in lanes:
            lane.working = False
            if rest:
                lane.resting = True
                self.waiting -= len(lane.waiting)
                self.resting += len(lane.waiting)
            else:
                self._go_on(lane)
        return lanes

    def wake(self, lane: Lane) -> None:
        """A lane has rested."""
        if self._closed:
            return
        lane.resting = False
        self.resting -= len(lane.waiting)
        self.waiting += len(lane.waiting)
        self._go_on(lane)

    def close(self) -> None:
        """Hand out nothing more; what is at work may come to its end."""
        self._closed = True
        self._ready.clear()
        self._by_key.clear()
        self.waiting = self.resting = 0

    def ready(self) -> int:
        """How many lanes could be worked on at once."""
        return len(self._ready)

    def _go_on(self, lane: Lane) -> None:
        if self._closed:
            return
        if lane.waiting:
            self._ready.append(lane)
        elif lane.key and self._by_key.get(lane.key) is lane:
            del self._by_key[lane.key]


def _lanes_of(parcels: list[Parcel]) -> list[Lane]:
    return list(dict.fromkeys(parcel.lane for parcel in parcels if parcel.lane is not None))
