"""Pictures in box drawing: which module stands in which workload, and who calls whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

GAP = 2


class Box(NamedTuple):
    """A titled box with one line per content."""

    title: str
    lines: Sequence[str]

    @property
    def width(self) -> int:
        return max(len(self.title) + 2, *(len(line) for line in self.lines), 10) + 4

    def draw(self, height: int) -> list[str]:
        inner = self.width - 2
        top = f"╭─ {self.title} " + "─" * (inner - len(self.title) - 3) + "╮"
        filled = [*self.lines, *[""] * (height - len(self.lines))]
        return [top, *(f"│ {line:<{inner - 2}} │" for line in filled), "╰" + "─" * inner + "╯"]


def boxes(drawn: Sequence[Box], width: int) -> str:
    """Boxes side by side, as many in a row as fit; boxes of one row are equally high."""
    rows: list[list[Box]] = [[]]
    used = 0
    for box in drawn:
        if rows[-1] and used + GAP + box.width > width:
            rows.append([])
            used = 0
        used += box.width + (GAP if rows[-1] else 0)
        rows[-1].append(box)
    lines: list[str] = []
    for row in rows:
        height = max((len(box.lines) for box in row), default=0)
        columns = [box.draw(height) for box in row]
        lines += [(" " * GAP).join(parts) for parts in zip(*columns, strict=True)]
    return "\n".join(lines)


def topology(
    workloads: Mapping[str, Sequence[str]], replicas: Mapping[str, int], public: str | None, width: int
) -> str:
    """One box for each workload. ``replicas`` counts by workload, ``public`` is the module with the gateway."""

    def box(name: str, modules: Sequence[str]) -> Box:
        count = replicas.get(name, 1)
        title = f"{name} ×{count}" if count > 1 else name  # noqa: RUF001 - "times", as it is read
        return Box(title, [f"{module} ◂ public" if module == public else module for module in modules])

    return boxes([box(name, modules) for name, modules in workloads.items()], width)


def tree(branches: Mapping[str, Sequence[str]]) -> str:
    """A trunk for each name, with its twigs below it."""
    lines: list[str] = []
    for trunk, twigs in branches.items():
        lines.append(trunk)
        lines += [f"{'└─' if twig is twigs[-1] else '├─'} {twig}" for twig in twigs]
    return "\n".join(lines)
