"""Which line of a flood is written: the first few of a kind, and then how many were left out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

Key = tuple[str, str, str, str, str]
"""Kind, decision, principal, action and reason."""
_KEYS_MAX = 1000


@dataclass(slots=True)
class _Window:
    """What was written and left out since ``began`` (monotonic seconds)."""

    began: float
    written: int = 0
    suppressed: int = 0


class Flood:
    """At most ``per_window`` lines with the same key in ``window_s`` seconds, and ``total`` altogether."""

    def __init__(self, now: float, *, per_window: int, total: int, window_s: float) -> None:
        self._per_window = per_window
        self._total = total
        self._window_s = window_s
        self._windows: OrderedDict[Key, _Window] = OrderedDict()
        self._all = _Window(now)
        self._told: list[tuple[Key | None, int]] = []

    def admits(self, key: Key, now: float) -> bool:
        """Whether the line is written. Ask :meth:`ended` afterwards for what is over now."""
        window = self._windows.get(key)
        if window is None or now - window.began >= self._window_s:
            if window is not None:
                self._end(key, window)
                del self._windows[key]
            window = self._windows[key] = _Window(now)
            self._forget_oldest()
        if window.written >= self._per_window:
            window.suppressed += 1
            return False
        if now - self._all.began >= self._window_s:
            self._end(None, self._all)
            self._all = _Window(now)
        if self._all.written >= self._total:
            self._all.suppressed += 1
            return False
        window.written += 1
        self._all.written += 1
        return True

    def ended(self) -> Iterator[tuple[Key | None, int]]:
        """Floods that are over, each told once: their key (None is all together) and how many were left out."""
        told, self._told = self._told, []
        yield from told

    def end(self) -> None:
        """Have all that was left out so far told."""
        for key, window in self._windows.items():
            self._end(key, window)
        self._end(None, self._all)

    def keep(self, key: Key | None, count: int) -> None:
        """What was told could not be written: tell it again."""
        self._told.append((key, count))

    def _end(self, key: Key | None, window: _Window) -> None:
        if window.suppressed:
            self._told.append((key, window.suppressed))
            window.suppressed = 0

    def _forget_oldest(self) -> None:
        while len(self._windows) > _KEYS_MAX:
            _, window = self._windows.popitem(last=False)
            # A flood of different keys must not write through here what the bound on all lines holds back.
            self._all.suppressed += window.suppressed
