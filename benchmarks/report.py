"""The table that people read and the file that later runs are compared with."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Row

WIDTH = 180
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"
RESULTS = Path(__file__).parent / "results" / "latest.json"


def machine() -> dict[str, str | int]:
    """What the figures depend on: processor, cores, memory, kernel, Python."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def write(rows: Sequence[Row], path: Path = RESULTS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine(), "rows": [_strict(row) for row in rows]}
    path.write_text(json.dumps(document, indent=2) + "\n")


def merged(new: Sequence[Row], path: Path = RESULTS) -> list[Row]:
    """The rows of the file with ``new`` in place of their namesakes: what a run of some rows leaves behind."""
    known = {row.name: row for row in new}
    old = _rows(json.loads(path.read_text())) if path.exists() else []
    kept = [known.pop(row.name, row) for row in old]
    return [*kept, *known.values()]


def show(rows: Sequence[Row], goals: Mapping[str, str], console: Console | None = None) -> None:
    table = Table(title="Seamline beside its peers (ratio above 1: better than the peer)", title_justify="left")
    table.add_column("row")
    table.add_column("unit")
    table.add_column("ours", justify="right")
    table.add_column("peer")
    table.add_column("theirs", justify="right")
    table.add_column("ratio", justify="right")
    table.add_column("goal", justify="right")
    table.add_column("rounds", justify="right")
    table.add_column("spread", justify="right")
    for row in rows:
        colour = "green" if row.ratio >= 1 else "red"
        table.add_row(
            row.name,
            row.unit,
            figure(row.value),
            row.peer,
            figure(row.peer_value),
            f"[{colour}]{row.ratio:.2f}[/]",
            goals.get(row.name, ""),
            str(row.rounds),
            f"{row.spread:.0%}",
        )
    (console or Console(width=None if sys.stdout.isatty() else WIDTH)).print(table)


def markdown(rows: Sequence[Row], goals: Mapping[str, str]) -> str:
    """The table as docs/performance.md shows it."""
    lines = ["| row | unit | ours | peer | theirs | ratio | goal | spread |", "|---|---|---:|---|---:|---:|---:|---:|"]
    for row in rows:
        cells = (
            f"`{row.name}`",
            row.unit,
            figure(row.value),
            row.peer,
            figure(row.peer_value),
            f"**{figure(row.ratio)}**",
            goals.get(row.name, ""),
            f"{row.spread:.0%}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def document(goals: Mapping[str, str], path: Path = DOCUMENT, results: Path = RESULTS) -> None:
    """Put the last report's table and machine between the marks in docs/performance.md."""
    told = json.loads(results.read_text())
    at = told["machine"]
    where = f"{at['processor']}, {at['cores']} cores, {at['memory_gb']} GB, {at['system']}, {at['python']}"
    table = markdown(_rows(told), goals)
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{where}.\n\n{table}\n{END}{after}")


def figure(value: float) -> str:
    """Three significant digits, thousands separated."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _strict(row: Row) -> dict[str, str | float | int | None]:
    """JSON has no NaN: a figure that could not be formed is null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.to_json().items()
    }


def _rows(told: dict[str, Any]) -> list[Row]:
    return [
        Row(**{key: math.nan if value is None else value for key, value in entry.items()}) for entry in told["rows"]
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
