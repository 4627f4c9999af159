"""``seamline logs``: what all workloads say, in one stream."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import connect
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data, Json

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings

app = typer.Typer(add_completion=False)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline logs --follow                  # everything, as it comes
    seamline logs --module payments -n 100  # the last hundred lines of one module
    seamline logs --json | jq .message      # one object a line
    """,
)
def logs(
    module: Annotated[
        str | None, typer.Option("--module", "-m", metavar="NAME", help="Only this module or workload.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", min=0, help="How many of the last.")] = 50,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The merged log of all workloads, coloured by module; with --json one object a line."""
    settings = connect.read_settings(app_folder, data)
    asyncio.run(stream(settings, module, lines, follow=follow, as_json=as_json))


async def stream(settings: Settings, module: str | None, lines: int, *, follow: bool, as_json: bool) -> None:
    from seamline.run.admin import AdminClient, RefusedError
    from seamline.run.logbook import LogBook

    book = LogBook(sys.stdout.write, colour=sys.stdout.isatty())
    arguments: dict[str, Any] = {"follow": follow, "lines": lines, "module": module}
    async for answer in AdminClient(settings.data_folder).request("logs", **arguments):
        if "error" in answer:
            raise RefusedError(answer["error"])
        if "log" in answer:
            line = answer["log"]
            sys.stdout.write((json.dumps(line) if as_json else book.pretty(line)) + "\n")
            sys.stdout.flush()
