"""An incident's explanation on the terminal: what was noticed, who is suspected, on what evidence."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from seamline.cli import manual, output
from seamline.cli.errors import UnknownIncidentError

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings
    from seamline.observe.incidents import Evidence, Incident, Suspect

_FOLDER = "telemetry"


def explain_incident(settings: Settings, name: str, *, as_json: bool) -> None:
    """Print what is known of the incident; it need not run. Raises UnknownIncidentError, TelemetryMissingError."""
    import msgspec

    from seamline.observe.store import TelemetryReader

    reader = TelemetryReader(settings.data_folder / _FOLDER)
    try:
        incident = reader.incident(name)
    finally:
        reader.close()
    if incident is None:
        raise UnknownIncidentError(f"there is no incident {name!r}", "`seamline incidents` lists those that are kept")
    if as_json:
        output.emit(msgspec.to_builtins(incident))
        return
    show(incident)


def show(incident: Incident) -> None:
    began = datetime.fromtimestamp(incident.began_ns / 1e9, UTC)
    typer.echo(manual.strong(f"{incident.id}  {incident.title}"))
    lasted = f", lasted {output.lasted((incident.ended_ns - incident.began_ns) / 1e9)}" if incident.ended_ns else ""
    typer.echo(f"{incident.status}, {incident.severity}; began {began:%Y-%m-%d %H:%M:%S} UTC{lasted}\n")
    typer.echo(manual.paragraphs(incident.summary.text or incident.reason or "It was not looked into yet.") + "\n")
    for place, suspect in enumerate(incident.suspects, 1):
        typer.echo(manual.strong(f"{place}. {named(suspect)}"))
        output.console().print(output.table({"": "fixed", "EVIDENCE": "left", "ADDS": "right"}, rows(suspect.evidence)))
        typer.echo("")
    if incident.marks:
        typer.echo(manual.strong("Changed in the ten minutes before"))
        for mark in incident.marks:
            ago = (incident.began_ns - mark.at_ns) / 1e9
            typer.echo(f"  {output.lasted(max(ago, 0.0))} before: {mark.title}")


def named(suspect: Suspect) -> str:
    from seamline.observe.explain.summary import cause

    method = f" ({suspect.method})" if suspect.method else ""
    return f"{cause(suspect)}{method}  {suspect.score:.2f}"


def rows(evidence: list[Evidence]) -> list[tuple[str, str, str]]:
    from rich.markup import escape

    return [(each.id, escape(each.text), f"{each.score:.2f}" if each.score else "") for each in evidence]
