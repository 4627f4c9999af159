"""The work: events into windows, windows closed and forgotten. One run is one transaction.

What is held in memory is what one batch touches; everything else is in rows, so the cost of an event does not depend
on how many came before it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from seamline.events.streams.aggregates import Aggregate, Change, Members
from seamline.events.streams.errors import StreamValueError
from seamline.events.streams.store import Place, PutAside, Store, WindowState
from seamline.events.streams.stream import Definition, Key
from seamline.events.streams.windows import Aligned, Session

_log = logging.getLogger("seamline.events.streams")


class Item(NamedTuple):
    """An event, or a pair, on its way into windows."""

    value: Any
    at_ms: int
    key: str
    values: tuple[Any, ...]
    """What it adds to each aggregate."""


@dataclass(slots=True)
class _Slot:
    """A window that this batch touches: what of it was there before, and what comes in."""

    key: str
    start_ms: int
    end_ms: int
    olds: list[WindowState] = field(default_factory=list[WindowState])
    items: list[Item] = field(default_factory=list[Item])


class Refused(NamedTuple):
    item: Item
    windows: int
    """How many of its windows were gone."""


def key_of(keys: Iterable[Key], value: Any) -> str:
    """The key as it is stored."""
    return msgspec.json.encode([str(key(value)) for key in keys]).decode()


def item_of(aggregates: Sequence[Aggregate[Any]], value: Any, at_ms: int, key: str) -> Item:
    """Asks the user's functions what the value adds. Raises what they raise, and StreamValueError."""
    return Item(value, at_ms, key, tuple([each.value_of(value) for each in aggregates]))


class Windowing:
    """Puts items into the windows of one view."""

    def __init__(self, definition: Definition[Any], store: Store) -> None:
        self._window = definition.window
        self._late_ms = definition.late_ms
        self._aggregates = tuple(definition.aggregates.values())
        self._members = [(index, each) for index, each in enumerate(self._aggregates) if isinstance(each, Members)]
        self._store = store

    async def take(self, items: Sequence[Item], watermark_ms: int) -> list[Refused]:
        """Add items to their windows. Returns those that a window refused: it was forgotten before the watermark."""
        if not items:
            return []
        gone_ms = watermark_ms - self._late_ms
        if isinstance(self._window, Session):
            slots, refused = await self._sessions(items, self._window.gap_ms, gone_ms)
        else:
            slots, refused = await self._aligned(items, self._window, gone_ms)
        await self._fill(slots)
        return refused

    async def _aligned(self, items: Sequence[Item], window: Aligned, gone_ms: int) -> tuple[list[_Slot], list[Refused]]:
        slots: dict[Place, _Slot] = {}
        refused: list[Refused] = []
        size_ms = window.size_ms
        for item in items:
            missed = 0
            for start_ms in window.starts(item.at_ms):
                if start_ms + size_ms <= gone_ms:
                    missed += 1
                    continue
                place = (item.key, start_ms)
                slot = slots.get(place)
                if slot is None:
                    slot = slots[place] = _Slot(item.key, start_ms, start_ms + size_ms)
                slot.items.append(item)
            if missed:
                refused.append(Refused(item, missed))
        for place, state in (await self._store.windows_at(slots)).items():
            slots[place].olds.append(state)
        return list(slots.values()), refused

    async def _sessions(self, items: Sequence[Item], gap_ms: int, gone_ms: int) -> tuple[list[_Slot], list[Refused]]:
        by_key: dict[str, list[tuple[int, int, WindowState | Item]]] = {}
        first_ms, last_ms = min(item.at_ms for item in items), max(item.at_ms for item in items)
        for item in items:
            by_key.setdefault(item.key, []).append((item.at_ms, item.at_ms + gap_ms, item))
        for old in await self._store.windows_of(by_key, first_ms, last_ms + gap_ms):
            by_key[old.key].append((old.start_ms, old.end_ms, old))
        slots: list[_Slot] = []
        refused: list[Refused] = []
        for key, spans in by_key.items():
            for slot in _joined(key, spans):
                if slot.olds or slot.end_ms > gone_ms:
                    slots.append(slot)
                else:
                    refused.extend(Refused(item, 1) for item in slot.items)
        return [slot for slot in slots if slot.items], refused

    async def _fill(self, slots: Sequence[_Slot]) -> None:
        windows = [await self._window_of(slot) for slot in slots]
        for slot, window in zip(slots, windows, strict=True):
            states = window.states
            for index, each in enumerate(self._aggregates):
                if isinstance(each, Members):
                    continue
                state, add = states[index], each.add
                for item in slot.items:
                    value = item.values[index]
                    if value is not None:
                        state = add(state, value)
                states[index] = state
        if self._members:
            await self._count_members(slots, windows)
        await self._store.save(windows)

    async def _window_of(self, slot: _Slot) -> WindowState:
        """The window as it was, made of several where sessions became one. It is open again."""
        if not slot.olds:
            states = [each.start() for each in self._aggregates]
            return WindowState(slot.key, slot.start_ms, slot.end_ms, states)
        first, *others = slot.olds
        window = WindowState(slot.key, slot.start_ms, slot.end_ms, list(first.states))
        window.revision = max(old.revision for old in slot.olds)
        for old in others:
            window.states = [
                each.merge(one, other)
                for each, one, other in zip(self._aggregates, window.states, old.states, strict=True)
            ]
        moved = [old for old in slot.olds if old.start_ms != slot.start_ms]
        if moved:
            for old in moved if self._members else ():
                await self._store.move_members(slot.key, old.start_ms, slot.start_ms)
            await self._store.remove(moved)
        if len(slot.olds) > 1:
            for index, each in self._members:
                window.states[index] = each.recount(*await self._store.census(window.place, index, each.wanted))
        return window

    async def _count_members(self, slots: Sequence[_Slot], windows: Sequence[WindowState]) -> None:
        added: dict[tuple[str, int, int, str], int] = {}
        for slot in slots:
            for index, _ in self._members:
                for item in slot.items:
                    for member, weight in item.values[index] or ():
                        place = (slot.key, slot.start_ms, index, member)
                        added[place] = added.get(place, 0) + weight
        before = await self._store.weights(added)
        changes: dict[tuple[str, int, int], list[Change]] = {}
        for place, weight in added.items():
            known = before.get(place)
            changes.setdefault(place[:3], []).append(Change(place[3], known, (known or 0) + weight))
        for window in windows:
            for index, each in self._members:
                changed = changes.get((window.key, window.start_ms, index))
                if changed:
                    window.states[index] = each.absorb(window.states[index], changed)
        distinct_only = {index for index, each in self._members if each.wanted == 0}
        await self._store.save_weights(
            ((*place, change.member), change.after)
            for place, changed in changes.items()
            for change in changed
            if change.before is None or place[2] not in distinct_only
        )

    async def close(self, watermark_ms: int, tell: Callable[[WindowState], None]) -> None:
        """Close the windows that the watermark has passed, and forget those that nothing may change any more."""
        while closing := await self._store.windows_to_close(watermark_ms):
            for window in closing:
                window.closed = True
                window.revision += 1
            await self._store.save(closing)
            for window in closing:
                tell(window)
        while forgotten := await self._store.windows_to_forget(watermark_ms - self._late_ms):
            await self._store.forget(forgotten)


def _joined(key: str, spans: list[tuple[int, int, WindowState | Item]]) -> list[_Slot]:
    """Spans of time that overlap, as one slot each."""
    slots: list[_Slot] = []
    for start_ms, end_ms, what in sorted(spans, key=lambda span: span[:2]):
        if slots and start_ms < slots[-1].end_ms:
            slot = slots[-1]
            slot.end_ms = max(slot.end_ms, end_ms)
        else:
            slot = _Slot(key, start_ms, end_ms)
            slots.append(slot)
        if isinstance(what, WindowState):
            slot.olds.append(what)
        else:
            slot.items.append(what)
    return slots


def aside(reason: str, value: Any, at_ms: int | None, watermark_ms: int, detail: str, data: bytes) -> PutAside:
    """Note an event that is not counted; one that a function failed on is the user's to look at."""
    name = type(value).__name__
    if reason == "failed":
        _log.warning("a stream put %s aside: %s", name, detail)
    return PutAside(reason, name, at_ms, watermark_ms, detail[:500], data)


def refused_why(error: Exception) -> str:
    return error.fact if isinstance(error, StreamValueError) else f"{type(error).__name__}: {error}"
