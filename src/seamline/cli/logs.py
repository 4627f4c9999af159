"""``seamline logs``: what all workloads say, in one stream, and what they said."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import connect
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data, Json
from seamline.cli.times import clock_time, past_ns
from seamline.cli.traces import kept

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings
    from seamline.observe.records import Log

app = typer.Typer(add_completion=False)

Show = Callable[[dict[str, Any]], None]
SEVERITIES = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline logs --follow                             # everything, as it comes
    seamline logs --module payments -n 100             # the last hundred lines of one module
    seamline logs --level error --since 2h             # what was kept, also when nothing runs
    seamline logs --search "card declined" --json      # by words; one object a line
    """,
)
def logs(
    module: Annotated[
        str | None, typer.Option("--module", "-m", metavar="NAME", help="Only this module or workload.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", min=0, help="How many of the last.")] = 50,
    level: Annotated[
        str, typer.Option("--level", metavar="LEVEL", help="At least: debug, info, warning, error, critical.")
    ] = "",
    search: Annotated[str, typer.Option("--search", metavar="TEXT", help="Only lines with these words.")] = "",
    trace: Annotated[str, typer.Option("--trace", metavar="ID", help="Only lines of this trace.")] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Since when: 15m, 2h, 7d, 2026-01-31T08:00.")
    ] = "",
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The merged log of all workloads, coloured by module; with --json one object a line.

    With --level, --search, --trace or --since, and when nothing runs, what is kept is read.
    """
    if level and level not in SEVERITIES:
        raise ArgumentError(f"there is no level {level!r}", f"There are {', '.join(SEVERITIES)}")
    if follow and (search or trace or since):
        raise ArgumentError("--follow shows what comes, the others what was", "Leave out one or the other")
    settings = connect.read_settings(app_folder, data)
    show = _printer(as_json=as_json)
    if search or trace or since or (level and not follow):
        _stored(settings, show, module or "", lines, level, search, trace, since)
        return
    from seamline.run.errors import NotRunningError

    try:
        asyncio.run(_live(settings, show, module, lines, level, follow=follow))
    except NotRunningError:
        if follow or not (settings.data_folder / "telemetry").exists():
            raise
        _stored(settings, show, module or "", lines, level, search, trace, since)


def _printer(*, as_json: bool) -> Show:
    from seamline.run.logbook import LogBook

    book = LogBook(sys.stdout.write, colour=sys.stdout.isatty())

    def show(line: dict[str, Any]) -> None:
        sys.stdout.write((json.dumps(line, default=str) if as_json else book.pretty(line)) + "\n")
        sys.stdout.flush()

    return show


async def _live(
    settings: Settings,
    show: Show,
    module: str | None,
    lines: int,
    level: str,
    *,
    follow: bool,
) -> None:
    from seamline.run.admin import AdminClient, RefusedError

    least = SEVERITIES.get(level, 0)
    arguments: dict[str, Any] = {"follow": follow, "lines": lines, "module": module}
    async for answer in AdminClient(settings.data_folder).request("logs", **arguments):
        if "error" in answer:
            raise RefusedError(answer["error"])
        if "log" in answer and SEVERITIES.get(str(answer["log"].get("level", "info")), 9) >= least:
            show(answer["log"])


def _stored(
    settings: Settings,
    show: Show,
    module: str,
    lines: int,
    level: str,
    search: str,
    trace: str,
    since: str,
) -> None:
    """The newest that fit, oldest first."""
    from seamline.observe.store.query import ROWS_MAX, LogQuery

    if not lines:
        return
    query = LogQuery(
        module=module, severity=SEVERITIES.get(level, 0), text=search, trace_id=trace, since_ns=past_ns(since),
        limit=min(lines, ROWS_MAX),
    )  # fmt: skip
    with kept(settings) as reader:
        page = reader.logs(query)
    for line in reversed(page.items):
        show(as_line(line))
    for note in page.notes:
        typer.echo(note, err=True)


def as_line(line: Log) -> dict[str, Any]:
    """A kept line in the form in which it was written."""
    level = next((name for name, least in reversed(SEVERITIES.items()) if line.severity >= least), "debug")
    found: dict[str, Any] = {
        "time": clock_time(line.at_ns).replace(" ", "T") + "Z",
        "level": level,
        "module": line.module,
        "logger": line.logger,
        "message": line.message,
        "workload": line.workload,
        "replica": line.replica,
    }
    if line.trace_id:
        found["trace_id"] = line.trace_id.hex()
    if line.exception:
        found["exception"] = line.exception
    return {**line.attributes, **found}
