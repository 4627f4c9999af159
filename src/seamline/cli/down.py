"""``seamline down``: end the application that runs."""

from __future__ import annotations

import typer

from seamline.cli import connect, output
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data, Json

app = typer.Typer(add_completion=False)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline down         # returns when everything has ended
    seamline down --json  # whether all requests in flight were finished
    """,
)
def down(app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """Stop the running application: refuse new work, finish what is in flight, end all processes.

    What is still in flight when `drain_timeout_s` of [run] is over is cut off; the answer says which of the
    two happened.
    """
    settings = connect.read_settings(app_folder, data)
    with output.progress(quiet=as_json) as say:
        result = connect.ask(settings, "stop", say)
    if as_json:
        output.emit(result)
        return
    drained = result.get("drained", True)
    said = "all requests in flight were finished" if drained else "the drain time was over with work in flight"
    typer.echo(f"{settings.app.name} has stopped; {said}.")
