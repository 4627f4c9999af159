"""``seamline metrics``: what was measured, as lines small enough for a terminal."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from seamline.cli import connect, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data, Json
from seamline.cli.times import past_ns
from seamline.cli.traces import Since, kept

if TYPE_CHECKING:
    from seamline.observe.store import TelemetryReader
    from seamline.observe.store.query import Series

app = typer.Typer(add_completion=False)

STEPS = 40
_TICKS = "▁▂▃▄▅▆▇█"
_SHOWN = {"gauge": ("value",), "counter": ("value",), "histogram": ("rate", "p50", "p99")}


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline metrics                              # what there is
    seamline metrics process.memory.usage         # one of them, of each process
    seamline metrics calls --module cart --since 6h
    """,
)
def metrics(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Of a metric, or `calls`: rate, errors and latency.")
    ] = "",
    module: Annotated[str, typer.Option("--module", "-m", metavar="NAME", help="Only this module's.")] = "",
    since: Since = "15m",
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Metrics over time; without a name, which there are. What is kept is read, also when nothing runs."""
    settings = connect.read_settings(app_folder, data)
    with kept(settings) as reader:
        since_ns = past_ns(since)
        if not name:
            _show_names(reader, module, since_ns, as_json=as_json)
            return
        found = _series(reader, name, module, since_ns)
    if not found:
        raise ArgumentError(f"there is no metric {name!r} since {since}", "`seamline metrics` lists those there are")
    if as_json:
        output.emit([dataclasses.asdict(each) for each in found])
        return
    columns = {"of": "fixed", "": "fixed", f"last {since}": "fixed", "least": "right", "most": "right", "now": "right"}
    output.console().print(output.table(columns, [row for each in found for row in _rows(each)]))


def _series(reader: TelemetryReader, name: str, module: str, since_ns: int) -> list[Series]:
    from seamline.observe.store.query import SeriesQuery

    now_ns = time.time_ns()
    step_ns = max((now_ns - since_ns) // STEPS, 1)
    if name == "calls":
        return [reader.red(SeriesQuery(module=module, since_ns=since_ns, until_ns=now_ns, step_ns=step_ns))]
    return reader.metric(name, module=module, since_ns=since_ns, until_ns=now_ns, step_ns=step_ns)


def _show_names(reader: TelemetryReader, module: str, since_ns: int, *, as_json: bool) -> None:
    found = [each for each in reader.metric_names(since_ns) if not module or module in each.modules]
    if as_json:
        output.emit([dataclasses.asdict(each) for each in found])
        return
    columns = {"metric": "fixed", "kind": "fixed", "unit": "fixed", "series": "right", "modules": "left"}
    rows = [[each.name, each.kind, each.unit or "-", str(each.series), " ".join(each.modules) or "-"] for each in found]
    if rows:
        output.console().print(output.table(columns, rows))
    else:
        typer.echo("nothing was measured in that time")


def _rows(series: Series) -> list[list[str]]:
    place = f"{series.workload}/{series.replica}" if series.workload else ""
    of = " ".join(part for part in (series.module or series.name, place, *series.attributes.values()) if part)
    shown = _SHOWN.get(series.kind, ("rate", "errors", "p50_ms", "p99_ms"))
    rows: list[list[str]] = []
    for column in shown:
        values = series.columns[column]
        known = [value for value in values if value is not None]
        if known:
            unit = series.unit if column != "rate" else "/s"
            rows.append(
                [of, column, sparkline(values), figure(min(known)), figure(max(known)), figure(known[-1], unit)]
            )
            of = ""
    return rows


def sparkline(values: Sequence[float | None]) -> str:
    """One character a value, from the least to the most; a space where nothing was told."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    scale = (len(_TICKS) - 1) / (high - low) if high > low else 0.0
    return "".join(" " if value is None else _TICKS[round((value - low) * scale)] for value in values)


def figure(value: float, unit: str = "") -> str:
    """Three digits: ``12.3``, ``4,560``, ``78 MB`` where bytes are counted."""
    if unit == "By":
        return output.size(value)
    shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{shown} {unit}".rstrip() if unit and not unit.startswith("{") else shown
