"""``seamline top``: what flows between the modules, and what it costs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import connect, output
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data, Json

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings

app = typer.Typer(add_completion=False)

FRAME_LINES = 12
"""Lines of the screen that are not edges."""


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline top                # live, until Ctrl-C
    seamline top --once         # one look of a second
    seamline top --once --json  # the same for a script; without --once one object a line, for ever
    """,
)
def top(
    once: Annotated[bool, typer.Option("--once", help="Look once, print, end.")] = False,
    interval: Annotated[float, typer.Option("--interval", metavar="S", min=0.05, max=60, help="Seconds a look.")] = 1.0,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Calls per second, latency and errors of each edge between modules; CPU and memory of each process."""
    settings = connect.read_settings(app_folder, data)
    if once or not (sys.stdout.isatty() or as_json):
        found = connect.ask(settings, "top", interval_s=interval)
        if as_json:
            output.emit(found)
        else:
            console = output.console()
            console.print(edges(found["edges"]))
            console.print()
            console.print(costs(found["workloads"]))
        return
    asyncio.run(stream(settings, interval) if as_json else watch(settings, interval))


async def stream(settings: Settings, interval: float) -> None:
    """One JSON object a line until the application ends."""
    async for look in looks(settings, interval):
        print(json.dumps(look), flush=True)


async def watch(settings: Settings, interval: float = 1.0) -> None:
    """A screen that is drawn anew with every look."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    console = output.console()
    title = Text.assemble((settings.app.name, "bold"), "  waiting for the first look")
    with Live(title, console=console, screen=True, auto_refresh=False) as live:
        async for look in looks(settings, interval):
            calls = sum(edge["calls_per_s"] for edge in look["edges"])
            title = Text.assemble(
                (settings.app.name, "bold"), f"  {look['topology']}  {calls:,.0f} calls/s  Ctrl-C ends"
            )
            costly = costs(look["workloads"])
            room = max(console.height - FRAME_LINES - costly.row_count, 3)
            live.update(Group(title, "", edges(look["edges"], room), "", costly), refresh=True)


async def looks(settings: Settings, interval: float) -> AsyncIterator[dict[str, Any]]:
    from seamline.run.admin import AdminClient, RefusedError

    async for answer in AdminClient(settings.data_folder).request("top", follow=True, interval_s=interval):
        if "error" in answer:
            raise RefusedError(answer["error"])
        if "top" in answer:
            yield answer["top"]


def edges(found: list[dict[str, Any]], room: int | None = None) -> Any:
    """The busiest edges; those without a call since the last look are left out."""
    busy = [edge for edge in found if edge["calls_per_s"] or edge["inflight"]]
    shown = busy if room is None else busy[:room]
    columns = {"caller": "fixed", "method": "fixed", "of": "fixed", "calls/s": "right", "errors/s": "right"}
    columns |= {"p50": "right", "p99": "right", "in flight": "right"}
    return output.table(
        columns,
        [
            [
                edge["caller"],
                edge["method"],
                edge["callee"],
                f"{edge['calls_per_s']:,.1f}",
                f"[bold red]{edge['errors_per_s']:,.1f}[/]" if edge["errors_per_s"] else "0",
                output.milliseconds(edge["p50_ms"]) if edge["calls_per_s"] else "-",
                output.milliseconds(edge["p99_ms"]) if edge["calls_per_s"] else "-",
                str(edge["inflight"]),
            ]
            for edge in shown
        ]
        or [["no calls just now", *[""] * 7]],
    )


def costs(workloads: list[dict[str, Any]]) -> Any:
    """CPU and memory of each process."""
    from seamline.cli.status import label

    return output.table(
        {"workload": "fixed", "pid": "right", "state": "fixed", "CPU": "right", "memory": "right", "lag": "right"},
        [
            [
                label(workload, replica),
                str(replica["pid"] or "-"),
                replica["state"],
                f"{replica['cpu_percent']:.0f} %",
                output.megabytes(replica["rss_mb"]),
                output.milliseconds(replica["loop_lag_ms"]),
            ]
            for workload in workloads
            for replica in workload["replicas"]
        ],
    )
