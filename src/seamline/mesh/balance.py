"""Which replica gets the next call: power of two choices on peak-EWMA latency, with ejection of outliers.

Two replicas are drawn by lot and the one with the lower cost wins; the cost is the latency, weighted so that it
jumps up at once and decays slowly (Finagle's Peak EWMA), times the calls it has under way: ours, and by its own word
those of other processes. A stream is under way for as long as it lasts, and its latency is that of its first item.

Where answers are made token by token, calls are not alike: if both of the two have told what is ahead of one more call,
that is the cost instead. It is believed within limits only: who claims to have nothing to do is still asked less when
our own calls there grow many and slow. What was told is forgotten after a moment, and when the connection is lost.

A replica that has said when it will have room again is left alone until then, if others have room.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from seamline.kernel.settings import MeshRules

if TYPE_CHECKING:
    from seamline.kernel.wire.frames import Ahead
    from seamline.mesh.channel import Channel


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a module can be reached."""

    host: str
    port: int
    weight: float = 1.0
    workload: str = ""
    version: str = ""
    wire: str = ""
    """``http`` where frames are not spoken."""

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"


class Replica:
    """An endpoint and what calls have learned of it."""

    __slots__ = (
        "_busy_until", "_counted", "_ejected_until", "_failures", "_others", "_others_until", "_stamp", "ahead",
        "channels", "endpoint", "inflight", "latency_s",
    )  # fmt: skip

    DECAY_S = 10.0
    FIRST_S = 0.001
    FLOOR_S = 0.00005
    BUSY_S_MAX = 5.0
    """It may be wrong about when it has room again."""
    OTHERS_S = 2.0
    """How long what it told of its load is good."""
    AHEAD_S_MAX = 30.0
    """More is not believed: who claims to be busy for ever is asked again when the others are."""
    BELIEVED = 4
    """How many times less than our own calls say it may claim to have ahead: engines make many answers at once."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.channels: dict[str, Channel] = {}
        """By calling module."""
        self.inflight = 0
        self.latency_s = self.FIRST_S
        self._stamp = monotonic()
        self._failures = 0
        self._ejected_until = 0.0
        self._busy_until = 0.0
        self._others = 0
        self._others_until = 0.0
        self.ahead: Ahead | None = None
        """As it was told last, perhaps long ago."""
        self._counted = 0
        """Our calls among what it told to be ahead."""

    def cost(self, now: float) -> float:
        """What one more call would cost; a replica that was not asked for long is forgiven its slowness."""
        forgiven = self.latency_s * math.exp(-(now - self._stamp) / self.DECAY_S)
        under_way = self.inflight if now > self._others_until else self.inflight + self._others
        return max(forgiven, self.FLOOR_S) * (under_way + 1) / self.endpoint.weight

    def ahead_s(self, now: float) -> float | None:
        """What one more call would take by the replica's own word, and no less than what we see allows; None where it
        has said nothing of late."""
        ahead = self.ahead
        if ahead is None or now > self._others_until:
            return None
        told_s = ahead.wait_s + max(self.inflight - self._counted, 0) * ahead.each_s + ahead.serve_s
        forgiven = self.latency_s * math.exp(-(now - self._stamp) / self.DECAY_S)
        seen_s = max(forgiven, self.FLOOR_S) * (self.inflight + 1)
        return max(min(told_s, self.AHEAD_S_MAX), seen_s / self.BELIEVED) / self.endpoint.weight

    def told(self, now: float, under_way: int, ahead: Ahead | None = None) -> None:
        """So many calls are under way there, ours and those of other processes, and that is ahead of one more."""
        self._others = max(under_way - self.inflight, 0)
        self._others_until = now + self.OTHERS_S
        self.ahead = ahead
        self._counted = self.inflight

    def ejected(self, now: float) -> bool:
        return now < self._ejected_until

    def has_room(self, now: float) -> bool:
        return now >= self._ejected_until and now >= self._busy_until

    def busy(self, now: float, after_s: float) -> None:
        """It has refused a call, and will have room again after so many seconds."""
        self._busy_until = now + min(after_s, self.BUSY_S_MAX)

    def observe(self, now: float, seconds: float) -> None:
        """A call took ``seconds``."""
        if seconds > self.latency_s:
            self.latency_s = seconds
        else:
            keep = math.exp(-(now - self._stamp) / self.DECAY_S)
            self.latency_s = self.latency_s * keep + seconds * (1 - keep)
        self._stamp = now

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self, now: float, rules: MeshRules, may_eject: bool) -> None:
        """The replica itself failed (not the handler's own fault)."""
        self._failures += 1
        if self._failures >= rules.outlier_failures and may_eject:
            self._ejected_until = now + rules.outlier_eject_s
            self._failures = 0


class Replicas:
    """The replicas of one module."""

    def __init__(self) -> None:
        self._all: dict[Endpoint, Replica] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, endpoint: Endpoint) -> bool:
        return endpoint in self._all

    def replace(self, endpoints: Iterable[Endpoint]) -> None:
        """Take a new list of endpoints; what is known of those that stay is kept."""
        self._all = {e: self._all.get(e) or Replica(e) for e in endpoints}

    def pick(self, now: float, canary: Mapping[str, float], avoid: Replica | None = None) -> Replica | None:
        """The replica for the next call, or None when there is none.

        ``canary`` maps versions to weights; ``avoid`` is a replica that was tried already.
        """
        candidates = self._of_version(canary) if canary else list(self._all.values())
        healthy = (
            [r for r in candidates if r.has_room(now)] or [r for r in candidates if not r.ejected(now)] or candidates
        )
        if avoid is not None and len(healthy) > 1:
            healthy = [r for r in healthy if r is not avoid]
        if len(healthy) < 2:
            return healthy[0] if healthy else None
        first, second = random.sample(healthy, 2)
        if first.ahead is not None and second.ahead is not None:
            one, other = first.ahead_s(now), second.ahead_s(now)
            if one is not None and other is not None:  # else latencies times calls are compared with their like
                return first if one <= other else second
        return first if first.cost(now) <= second.cost(now) else second

    def named(self, version_or_workload: str) -> Replica | None:
        """Any replica of a version or a workload."""
        found = [r for r in self._all.values() if version_or_workload in (r.endpoint.version, r.endpoint.workload)]
        return random.choice(found) if found else None

    def may_eject(self, now: float, rules: MeshRules) -> bool:
        """Whether one more replica may be left out."""
        out = sum(r.ejected(now) for r in self._all.values())
        return out + 1 <= rules.outlier_eject_max_ratio * len(self._all)

    def _of_version(self, canary: Mapping[str, float]) -> Sequence[Replica]:
        by_version: dict[str, list[Replica]] = {}
        for replica in self._all.values():
            by_version.setdefault(replica.endpoint.version, []).append(replica)
        known = [(v, w) for v, w in canary.items() if v in by_version and w > 0]
        if not known:
            return list(self._all.values())
        (chosen,) = random.choices([v for v, _ in known], [w for _, w in known])
        return by_version[chosen]
