"""``seamline sidecar``: have a service in another language answer for a module, as long as this runs."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from seamline.cli import connect, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data

app = typer.Typer(add_completion=False)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline sidecar currency --port 9000   # the service listens on 127.0.0.1:9000 already
    """,
)
def sidecar(
    module: Annotated[str, typer.Argument(help="The module whose contracts the service answers.")],
    port: Annotated[
        int, typer.Option(metavar="P", min=1, max=65535, help="Of the loopback; the service listens there.")
    ],
    app_folder: App = None,
    data: Data = None,
) -> None:
    """Put a sidecar beside a service that runs, in front of a module of the application that is up.

    Calls of the module go to it under the application's policy and over mutual TLS. Ctrl-C gives the module back to
    its inside in Python. `[sidecars.<module>]` in seamline.toml does the same for good.
    """
    settings = connect.read_settings(app_folder, data)
    if module not in settings.modules:
        raise ArgumentError(f"there is no module {module!r}", f"Known: {', '.join(sorted(settings.modules))}")
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # one that comes early is waited for below
    with output.progress(quiet=False) as say:
        connect.ask(settings, "sidecar", say, module=module, port=port)
    typer.echo(f"{module} is answered at port {port}, behind its sidecar; Ctrl-C gives it back")
    signal.sigwait(ends)
    with output.progress(quiet=False) as say:
        connect.ask(settings, "sidecar", say, module=module, port=0)
    typer.echo(f"{module} is answered by its inside in Python again")
