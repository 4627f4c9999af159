"""``seamline incidents``: what goes wrong, and what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from seamline.cli import connect, manual, output
from seamline.cli.errors import UnknownIncidentError
from seamline.cli.manual import ManualCommand, ManualGroup
from seamline.cli.options import App, Data, Json
from seamline.cli.times import clock_time, past_ns
from seamline.cli.traces import kept

if TYPE_CHECKING:
    from seamline.observe.incidents import Incident

app = typer.Typer(
    add_completion=False,
    cls=ManualGroup,
    invoke_without_command=True,
    epilog="""
    seamline incidents                     # the last week's, the newest first
    seamline incidents --open --check      # exit status 1 if something is wrong now
    seamline incidents show INC-7          # how it went, who is suspected, what was changed before
    """,
)


@app.callback()
def incidents(
    context: typer.Context,
    only_open: Annotated[bool, typer.Option("--open", help="Only those that go on.")] = False,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Open since then: 15m, 2h, 7d, 2026-01-31T08:00.")
    ] = "7d",
    check: Annotated[bool, typer.Option("--check", help="End with exit status 1 if one goes on.")] = False,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """What is not as it was, put together by cause. What is kept is read, also when nothing runs."""
    if context.invoked_subcommand is not None:
        return
    import msgspec

    with kept(connect.read_settings(app_folder, data)) as reader:
        found = reader.incidents(since_ns=past_ns(since), open_only=only_open)
    if as_json:
        output.emit([msgspec.to_builtins(each) for each in found])
    elif found:
        output.console().print(output.table(COLUMNS, map(_row, found)))
    else:
        typer.echo("Nothing goes wrong now." if only_open else "Nothing went wrong in that time.")
    if check and any(each.status == "open" for each in found):
        raise typer.Exit(output.STATUS_FOUND_WANTING)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline incidents show INC-7
    seamline incidents show INC-7 --json
    """,
)
def show(
    name: Annotated[str, typer.Argument(metavar="INCIDENT", help="Such as INC-7, or 7.")],
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """One incident: its suspects with their evidence, and how it went."""
    import msgspec

    from seamline.cli import explain_incident

    with kept(connect.read_settings(app_folder, data)) as reader:
        found = reader.incident(f"INC-{name}" if name.isdigit() else name.upper())
    if found is None:
        raise UnknownIncidentError(f"there is no incident {name!r}", "`seamline incidents` lists those that are kept")
    if as_json:
        output.emit(msgspec.to_builtins(found))
        return
    explain_incident.show(found)
    typer.echo(manual.strong("How it went"))
    for entry in sorted(found.timeline, key=lambda each: each.at_ns):
        typer.echo(output.harmless(f"  {clock_time(entry.at_ns)}  {entry.kind:<9}  {entry.text}"))
    for note in found.notes:
        typer.echo(output.harmless(f"  {clock_time(note.at_ns)}  {note.by} wrote: {note.text}"))


COLUMNS = {
    "incident": "fixed", "began": "fixed", "lasted": "right", "severity": "fixed", "what": "left", "suspected": "left",
}  # fmt: skip


def _row(incident: Incident) -> list[str]:
    lasted = output.lasted((incident.ended_ns - incident.began_ns) / 1e9) if incident.ended_ns else "goes on"
    suspect = incident.suspects[0] if incident.suspects and not incident.abstained else None
    return [
        incident.id,
        clock_time(incident.began_ns)[:-4],
        lasted,
        incident.severity,
        output.plain(incident.title),
        output.plain(f"{suspect.module} ({suspect.kind})") if suspect else "-",
    ]
