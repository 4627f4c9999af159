"""The families of rows. A family shares its processes; its rows are figures of the same load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.figures import Row
from benchmarks.session import Session


@dataclass(frozen=True, slots=True)
class Family:
    """``rows`` maps the name of each row to the goal of the design, "" where it states none."""

    rows: dict[str, str]
    measure: Callable[[Session], Sequence[Row]]
