"""Switching the topology back and forth while a load runs, and what it cost the shoppers."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter as now
from typing import TYPE_CHECKING, Any

from seamline.cli import connect
from seamline.kernel.errors import SeamlineError

if TYPE_CHECKING:
    from seamline.cli.load_engine import Load
    from seamline.kernel.settings import Settings


@dataclass(frozen=True, slots=True)
class Switched:
    """One switch: how long it took, and what was asked and failed meanwhile."""

    before: str
    after: str
    lasted_s: float
    requests: int
    failed: int

    def to_json(self) -> dict[str, Any]:
        return {
            "from": self.before,
            "to": self.after,
            "lasted_s": round(self.lasted_s, 3),
            "requests_meanwhile": self.requests,
            "failed_meanwhile": self.failed,
        }


class Switching:
    """Switches ``count`` times between two topologies through the admin socket."""

    def __init__(self, settings: Settings, between: tuple[str, str], count: int, pause_s: float) -> None:
        self.count = count
        self.done: list[Switched] = []
        self.error: SeamlineError | None = None
        """Why a switch did not happen; the load ends then."""
        self.now = ""
        """What is going on, for the progress line."""
        self._settings = settings
        self._between = between
        self._pause_s = pause_s

    async def run(self, load: Load) -> None:
        """Switch while the load runs. Ends early if the load was stopped by hand, or a switch was refused."""
        try:
            await self._run(load)
        except SeamlineError as error:
            self.error = error

    async def _run(self, load: Load) -> None:
        current = str((await connect.ask_async(self._settings, "status"))["topology"])
        await self._shop_on(load)
        while len(self.done) < self.count and not load.stopped:
            wanted = self._between[1] if current == self._between[0] else self._between[0]
            self.now = f"switching {current} to {wanted}"
            began, requests, failed = now(), load.tally.requests, load.tally.failed
            await connect.ask_async(self._settings, "switch", topology=wanted)
            self.done.append(
                Switched(
                    current,
                    wanted,
                    now() - began,
                    load.tally.requests - requests,
                    load.tally.failed - failed,
                )
            )
            current, self.now = wanted, wanted
            await self._shop_on(load)
        least_s = load.plan.duration_s or 0.0
        if not load.stopped and load.elapsed_s < least_s:
            await load.stopped_within(least_s - load.elapsed_s)

    async def _shop_on(self, load: Load) -> None:
        if self._pause_s:
            await load.stopped_within(self._pause_s)
