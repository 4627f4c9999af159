"""``seamline admin``: a way into the control API."""

from __future__ import annotations

from typing import Annotated

import typer

from seamline.cli import connect, output
from seamline.cli.manual import ManualCommand, ManualGroup
from seamline.cli.options import App, Data, Json

app = typer.Typer(
    add_completion=False,
    cls=ManualGroup,
    help="""The control API of the running application: who may use it.

    It takes one-time tokens, each for one session, and has no passwords. `seamline up` prints the first.
    """,
    epilog="""
    seamline admin token                 # for an admin
    seamline admin token --role viewer   # for somebody who only looks
    """,
)


@app.callback()
def admin() -> None:
    """The control API of the running application."""


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline admin token --role operator
    """,
)
def token(
    role: Annotated[str, typer.Option("--role", help="viewer, operator or admin.")] = "admin",
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a token that is good once, for ten minutes."""
    result = connect.ask(connect.read_settings(app_folder, data), "token", role=role)
    if as_json:
        output.emit(result)
    else:
        typer.echo(f"{result['url']}  token {result['token']}  ({result['role']}, once)")
