"""How far event time has come: the watermark, before which nothing more is expected.

It is the newest event time of each partition of each event type, less what may come out of order, and of those the
smallest. A partition from which nothing came for ``idle_ms`` by the clock no longer holds the others back; when all
are idle, event time goes on with the clock. A type of which nothing was ever heard holds it for as long, so that a
replay waits for both sides of a join.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

BEGINNING: Final = -(2**62)
"""The watermark of a view that has seen nothing."""


@dataclass(slots=True)
class Heard:
    newest_ms: int
    seen_ms: int
    """By the clock."""


class Progress:
    """The watermark of one view.

    Args:
        patience_ms: by event type, how much later than others an event may come.
        started_ms: when this process began to listen, by the clock: what came while nobody listened was not idleness.
    """

    def __init__(
        self,
        patience_ms: Mapping[str, int],
        *,
        idle_ms: int,
        started_ms: int,
        watermark_ms: int = BEGINNING,
        heard: Iterable[tuple[str, int, Heard]] = (),
    ) -> None:
        self._patience_ms = patience_ms
        self._idle_ms = idle_ms
        self.started_ms = started_ms
        self.watermark_ms = watermark_ms
        self.heard = {(event, partition): each for event, partition, each in heard if event in patience_ms}

    @property
    def events(self) -> Collection[str]:
        """The names of the event types that it listens to."""
        return self._patience_ms.keys()

    def hear(self, event: str, partition: int, at_ms: int, now_ms: int) -> None:
        each = self.heard.get((event, partition))
        if each is None:
            self.heard[event, partition] = Heard(at_ms, now_ms)
        else:
            each.newest_ms, each.seen_ms = max(each.newest_ms, at_ms), now_ms

    def advance(self, now_ms: int) -> int:
        """Bring the watermark to where it may be now. It never goes back."""
        self.watermark_ms = max(self.watermark_ms, self._reached(now_ms))
        return self.watermark_ms

    def _idle_for(self, each: Heard, now_ms: int) -> int:
        """For how long it has been idle; negative while it is not."""
        return now_ms - max(each.seen_ms, self.started_ms) - self._idle_ms

    def _reached(self, now_ms: int) -> int:
        if not self.heard:
            return BEGINNING
        unheard = self._patience_ms.keys() - {event for event, _ in self.heard}
        if unheard and now_ms - self.started_ms < self._idle_ms:
            return BEGINNING
        active = [
            each.newest_ms - self._patience_ms[event]
            for (event, _), each in self.heard.items()
            if self._idle_for(each, now_ms) < 0
        ]
        if active:
            return min(active)
        newest_ms = max(each.newest_ms - self._patience_ms[event] for (event, _), each in self.heard.items())
        return newest_ms + min(self._idle_for(each, now_ms) for each in self.heard.values())
