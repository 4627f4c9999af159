"""``seamline portal``: the address at which the portal of the running application lets one in."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from seamline.cli import connect, output
from seamline.cli.errors import NotAnsweringError
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data, Json

app = typer.Typer(add_completion=False)


def sign_in_url(control_url: str, token: str) -> str:
    """Where a browser signs in. What stands behind ``#`` is never sent, so it is in no log."""
    return f"{control_url}/#token={token}"


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline portal                # the address, good once and for ten minutes
    seamline portal --open         # in the browser
    seamline portal --role viewer  # for somebody who only looks
    """,
)
def portal(
    role: Annotated[str, typer.Option("--role", help="viewer, operator or admin.")] = "admin",
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Print an address of the portal with which one person can sign in."""
    settings = connect.read_settings(app_folder, data)
    if not connect.ask(settings, "status").get("portal"):
        raise NotAnsweringError("the application runs without a portal", "Set store = true under [observe].")
    made = connect.ask(settings, "token", role=role)
    url = sign_in_url(made["url"], made["token"])
    if as_json:
        output.emit({"url": url, "role": made["role"]})
        return
    typer.echo(url)
    if open_it:
        webbrowser.open(url)
