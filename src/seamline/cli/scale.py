"""``seamline scale``: more or fewer processes for a module."""

from __future__ import annotations

from typing import Annotated

import typer

from seamline.cli import connect, output
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data, Json
from seamline.cli.topology import change

app = typer.Typer(add_completion=False)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline scale orders=3          # three processes for orders
    seamline scale orders=1 cart=2   # several at once
    """,
)
def scale(
    counts: Annotated[list[str], typer.Argument(metavar="MODULE=N", help="A module or workload, and how many.")],
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Give modules more or fewer replicas while they run; those that end are drained first."""
    settings = connect.read_settings(app_folder, data)
    wanted = connect.parse_counts(counts, connect.known_names(settings))
    with output.progress(quiet=as_json) as say:
        result = connect.ask(settings, "scale", say, replicas=wanted)
    if as_json:
        output.emit(result)
    else:
        said = ", ".join(f"{name} has {count} replica{'s' if count != 1 else ''}" for name, count in wanted.items())
        typer.echo(f"{said}. {change(result)}")
