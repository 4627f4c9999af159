"""How much of each service level's error budget is left."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seamline.kernel.settings.observe import SloSettings
from seamline.observe.store.query import SeriesQuery

if TYPE_CHECKING:
    from seamline.portal.app import Portal
    from seamline.portal.now import State


@dataclass(frozen=True, slots=True)
class Promise:
    """A service level objective and how it is kept."""

    name: str
    slo: SloSettings
    calls: float
    errors: float

    @property
    def kept(self) -> float | None:
        """The share of good answers."""
        return 1 - self.errors / self.calls if self.calls else None

    @property
    def left(self) -> float:
        """Share of the error budget that is left; below 0 when more was spent than there was."""
        allowed = (1 - self.slo.objective) * self.calls
        return 1 - self.errors / allowed if allowed else 1.0

    @property
    def state(self) -> State:
        if not self.calls:
            return "idle"
        return "bad" if self.left <= 0 else "warn" if self.left < 0.25 else "good"


async def promises(portal: Portal, now_ns: int) -> list[Promise]:
    """Of each ``[observe.slos.<name>]``."""
    slos = portal.settings.observe.slos
    return list(await asyncio.gather(*(asyncio.to_thread(_promise, portal, name, slos[name], now_ns) for name in slos)))


def _promise(portal: Portal, name: str, slo: SloSettings, now_ns: int) -> Promise:
    kind, _, module = slo.target.partition(":")
    since_ns = now_ns - int(slo.window_days * 86_400e9)
    step_ns = int(slo.window_days * 86_400e9) // 100
    if module:
        side = "http" if kind == "http" else ""
        query = SeriesQuery(module=module, side=side, since_ns=since_ns, until_ns=now_ns, step_ns=step_ns)
    else:
        query = SeriesQuery(method=slo.target, since_ns=since_ns, until_ns=now_ns, step_ns=step_ns)
    columns = portal.reader.red(query).columns
    return Promise(name, slo, sum(each or 0 for each in columns["calls"]), sum(each or 0 for each in columns["errors"]))
