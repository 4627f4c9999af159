"""A process's part of the partitions of one name, and the sum that says how large it should be."""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seamline.events.fences import lease_of
from seamline.events.transport import Fence

if TYPE_CHECKING:
    from seamline.events.leases import Leases


class Share:
    """This process's part of the partitions of one name. Made by :meth:`Leases.join`."""

    def __init__(self, leases_: Leases, name: str, partitions: int) -> None:
        self.name = name
        self.partitions = partitions
        self.changed = asyncio.Event()
        """Set when :meth:`held` has changed; to be cleared by who waits for it."""
        self.epochs: dict[int, int] = {}
        self.leaving: set[int] = set()
        self._leases = leases_

    def held(self) -> Mapping[int, int]:
        """The partitions that are ours now, and their epochs. What is to go to another member is not among them for
        one heartbeat before it goes, so that work under way can end."""
        if not self._leases.alive():
            return {}
        return {partition: epoch for partition, epoch in self.epochs.items() if partition not in self.leaving}

    def fence(self, partition: int) -> Fence | None:
        """What :func:`check` wants to see; None if the partition is not ours."""
        epoch = self.held().get(partition)
        return None if epoch is None else Fence(lease_of(self.name, partition), epoch)

    async def close(self) -> None:
        """Give the partitions back at once."""
        await self._leases.leave(self)


@dataclass(frozen=True, slots=True)
class Lease:
    partition: int
    epoch: int
    member: str


@dataclass(slots=True)
class Plan:
    """What one heartbeat does to a share."""

    share: Share
    epochs: dict[int, int]
    """What stays ours, and what was taken."""
    leaving: set[int]
    """Of these, what is given back next time."""
    give: list[int]
    take: list[Lease]

    def settle(self) -> None:
        before = (dict(self.share.epochs), self.share.leaving)
        self.share.epochs, self.share.leaving = self.epochs, self.leaving
        if before != (self.epochs, self.leaving):
            self.share.changed.set()


def make_plan(share: Share, rows: Sequence[Lease], present: Iterable[str], me: str) -> Plan:
    """Each member is due as many partitions as any other, or one more; who has more keeps the one more."""
    ours = {row.partition: row.epoch for row in rows if row.member == me}
    give = [each for each in sorted(share.leaving) if each in ours]
    counts = Counter(row.member for row in rows)
    ranking = sorted(present, key=lambda each: (-counts[each], zlib.crc32(f"{share.name} {each}".encode()), each))
    quota, more = divmod(len(rows), len(ranking))
    if ranking.index(me) < more:
        quota += 1
    epochs = {partition: epoch for partition, epoch in ours.items() if partition not in give}
    leaving = set(sorted(epochs)[quota:])
    free = [row for row in rows if row.member not in ranking]
    return Plan(share, epochs, leaving, give, free[: max(quota - len(epochs), 0)])
