"""Windows: how a stream without end is cut into pieces of event time.

After Akidau et al., "The Dataflow Model" (VLDB 2015). A window holds its start and not its end. Times are
milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seamline.events.streams.errors import StreamDeclarationError

WINDOWS_OF_ONE_EVENT_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Aligned:
    """Windows of one length that begin at fixed times: tumbling, or sliding where they overlap."""

    size_ms: int
    every_ms: int
    offset_ms: int = 0

    def starts(self, at_ms: int) -> Sequence[int]:
        """The starts of all windows that hold ``at_ms``."""
        last = at_ms - (at_ms - self.offset_ms) % self.every_ms
        return (last,) if self.every_ms == self.size_ms else range(last, at_ms - self.size_ms, -self.every_ms)


@dataclass(frozen=True, slots=True)
class Session:
    """Windows that go on while events come; a pause of ``gap_ms`` ends them."""

    gap_ms: int


Window = Aligned | Session


def tumbling(size_s: float, *, offset_s: float = 0.0) -> Window:
    """Windows side by side: each event is in one. They begin at multiples of ``size_s`` since the epoch, UTC."""
    size_ms = _ms("tumbling(size_s)", size_s)
    return Aligned(size_ms, size_ms, round(offset_s * 1000))


def sliding(size_s: float, *, every_s: float, offset_s: float = 0.0) -> Window:
    """Windows of ``size_s`` seconds, one of which begins ``every_s`` seconds: each event is in several."""
    size_ms, every_ms = _ms("sliding(size_s)", size_s), _ms("sliding(every_s)", every_s)
    if every_ms > size_ms or size_ms > WINDOWS_OF_ONE_EVENT_MAX * every_ms:
        raise StreamDeclarationError(
            f"sliding({size_s:g}, every_s={every_s:g}) would put an event into {size_ms / every_ms:g} windows",
            f"every_s is at most size_s, and size_s at most {WINDOWS_OF_ONE_EVENT_MAX} times every_s.",
        )
    return Aligned(size_ms, every_ms, round(offset_s * 1000))


def session(gap_s: float) -> Window:
    """Windows of events less than ``gap_s`` seconds apart. An event that fills the gap between two makes them one."""
    return Session(_ms("session(gap_s)", gap_s))


def _ms(what: str, seconds: float) -> int:
    milliseconds = round(seconds * 1000)
    if milliseconds < 1:
        raise StreamDeclarationError(f"{what} is {seconds!r}", "Give it seconds above 0.")
    return milliseconds
