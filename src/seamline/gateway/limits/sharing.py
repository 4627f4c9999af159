"""One sum for all gateways.

No request waits for it. A gateway limits by what it knows, and tells the store a few times a second what it has let
through; the store answers how far ahead everybody together is. What several gateways let through at once in one
such moment is not forgiven but stands against the client: over time the rate is that of one gateway. A store that
is down is said to be, and each gateway counts by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from seamline.gateway.limits.errors import SharedStoreError
from seamline.gateway.limits.gcra import Meter
from seamline.kernel.clock import Clock
from seamline.kernel.lifetime import TaskOwner

_log = logging.getLogger("seamline.gateway")

_TELL_S = 0.05
_RETRY_S = 1.0
_ANSWER_S = 2.0
_NAMES_MAX = 2000
"""Told at a time."""


class Store(Protocol):
    """Adds up for all gateways."""

    async def spend(self, costs_s: Mapping[str, float], /) -> Mapping[str, float]:
        """Move each name on by its cost in seconds; how far ahead of now it is then.

        Raises OSError, SharedStoreError.
        """
        ...

    async def close(self) -> None: ...


class Sharing:
    """Tells the store what was let through here, and heeds its answer."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._meters: dict[str, Meter] = {}
        self._costs_s: dict[str, float] = {}
        self._owner = TaskOwner("limits shared by gateways")
        self._waiting: asyncio.Event = asyncio.Event()
        self.down = False

    def know(self, meters: Mapping[str, Meter]) -> None:
        """The meters by the prefix of their names."""
        self._meters.update(meters)

    def add(self, prefix: str, name: str, cost_s: float) -> None:
        """Note what was let through."""
        key = prefix + name
        costs = self._costs_s
        if not costs:
            self._waiting.set()
        costs[key] = costs.get(key, 0.0) + cost_s

    def start(self) -> None:
        self._owner.spawn(self._keep_telling(), name="shared limits")

    async def close(self) -> None:
        await self._owner.stop()
        await self._store.close()

    async def tell(self) -> None:
        """Settle what was noted; done a few times a second by itself."""
        costs, self._costs_s = self._costs_s, {}
        self._waiting.clear()
        names = list(costs)
        try:
            async with asyncio.timeout(_ANSWER_S):
                for start in range(0, len(names), _NAMES_MAX):
                    part = {name: costs[name] for name in names[start : start + _NAMES_MAX]}
                    self._heed(await self._store.spend(part))
        except (OSError, SharedStoreError) as error:
            if not self.down:
                told = SharedStoreError(
                    f"the store of shared limits cannot be reached ({error or type(error).__name__})",
                    "Each gateway counts by itself until it is back.",
                )
                _log.warning("%s", told)
            self.down = True
            return
        if self.down:
            _log.warning("the store of shared limits is back")
        self.down = False

    def _heed(self, ahead_s: Mapping[str, float]) -> None:
        now = self._clock.monotonic()
        for key, ahead in ahead_s.items():
            prefix, separator, name = key.partition(" ")
            meter = self._meters.get(prefix + separator)
            if meter is not None:  # what came meanwhile has not been told yet
                meter.arrivals.put(name, now + ahead + self._costs_s.get(key, 0.0), now)

    async def _keep_telling(self) -> None:
        while True:
            await self._waiting.wait()
            await asyncio.sleep(_RETRY_S if self.down else _TELL_S)
            await self.tell()
