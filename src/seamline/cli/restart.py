"""``seamline restart``: new processes for the same workloads."""

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
    seamline restart           # all workloads
    seamline restart checkout  # one
    """,
)
def restart(
    workload: Annotated[
        str | None, typer.Argument(metavar="WORKLOAD", help="A workload, as `seamline status` calls it.")
    ] = None,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Replace the processes of one workload, or of all: start the new, drain the old. No request fails."""
    settings = connect.read_settings(app_folder, data)
    arguments = {"workload": workload} if workload else {}
    with output.progress(quiet=as_json) as say:
        result = connect.ask(settings, "restart", say, **arguments)
    if as_json:
        output.emit(result)
    else:
        typer.echo(change(result))
