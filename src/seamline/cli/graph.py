"""``seamline graph``: which module calls which contract, and hears which event."""

from __future__ import annotations

from typing import Annotated

import typer

from seamline.cli import manual, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Json

app = typer.Typer(add_completion=False)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline graph                               # a picture
    seamline graph --mermaid > docs/modules.mmd  # to keep beside the code: a new arrow is then a diff
    seamline graph --json                        # for a script
    """,
)
def graph(
    app_folder: App = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flowchart.")] = False,
    as_json: Json = False,
) -> None:
    """Which module calls which contract and handles whose events, read from the wiring without starting anything.

    Constructors, factories, hooks, FastAPI dependencies and `use(Contract)` in the module's own files are read.
    """
    from seamline.cli import modules, picture

    if mermaid and as_json:
        raise ArgumentError("--mermaid and --json are both given", "Choose one")
    application = modules.load_application(app_folder)
    arrows, heard = application.graph(), application.heard()
    if as_json:
        output.emit(
            {
                "modules": list(application.modules),
                "calls": [{"caller": a, "contract": b, "callee": c} for a, b, c in arrows],
                "events": [{"hearer": a, "event": b, "publisher": c} for a, b, c in heard],
            }
        )
    elif mermaid:
        typer.echo("flowchart LR")
        for name in application.modules:
            typer.echo(f"    {name}")
        for caller, contract, callee in arrows:
            typer.echo(f"    {caller} -->|{contract}| {callee}")
        for hearer, event, publisher in heard:
            typer.echo(f"    {publisher} -.->|{event}| {hearer}")
    else:
        branches = {
            name: [
                *(f"{b} of {c}" if b.lower() != c else b for a, b, c in arrows if a == name),
                *(f"hears {b} of {c}" for a, b, c in heard if a == name),
            ]
            for name in application.modules
        }
        quiet = [name for name, twigs in branches.items() if not twigs]
        typer.echo(picture.tree({name: twigs for name, twigs in branches.items() if twigs}))
        if quiet:
            typer.echo(manual.paragraphs(f"Calling nobody: {', '.join(quiet)}."))
