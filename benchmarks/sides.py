"""Two sides of a comparison, each a set of server processes and one driver, loaded in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.driver import Measure
from benchmarks.processes import Child

_SLACK_S = 60
ERRORS_SHARE_MAX = 0.001


class LoadFailed(RuntimeError):
    """Calls failed under load: a figure from them would mean nothing."""


@dataclass(slots=True)
class Side:
    """``servers`` are the processes whose CPU counts as the server's; all are warm and idle while the other side runs.

    ``sidecars`` work for the client: their CPU is added to the driver's.
    """

    name: str
    servers: Sequence[Child]
    driver: Child
    sidecars: Sequence[Child] = ()

    def run(self, command: dict[str, Any]) -> Measure:
        servers, sidecars = _cpu_s(self.servers), _cpu_s(self.sidecars)
        measure = Measure(**self.driver.ask(command, command["seconds"] + _SLACK_S))
        measure.server_cpu_s = _cpu_s(self.servers) - servers
        measure.client_cpu_s += _cpu_s(self.sidecars) - sidecars
        if measure.calls == 0 or measure.errors > ERRORS_SHARE_MAX * measure.calls:
            raise LoadFailed(
                f"{self.name}: {measure.errors} of {measure.errors + measure.calls} calls failed, "
                f"first: {measure.first_error}\n{self.logs()}"
            )
        return measure

    def logs(self) -> str:
        return "\n".join(f"-- {child.name}\n{child.log()}" for child in [*self.servers, self.driver])


def _cpu_s(children: Sequence[Child]) -> float:
    return sum(child.cpu_s() for child in children)


def alternate(sides: Sequence[Side], command: dict[str, Any], *, rounds: int, warm_up_s: float) -> list[list[Measure]]:
    """Warm every side, then run them in turns (A B A B ...); the measures of each side, round by round.

    Turns rather than blocks: a machine that slows for a while slows both sides.
    """
    for side in sides:
        side.run(command | {"seconds": warm_up_s})
    measures: list[list[Measure]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, taken in zip(sides, measures, strict=True):
            taken.append(side.run(command))
    return measures
