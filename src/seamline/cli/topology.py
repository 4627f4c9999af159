"""``seamline topology``: which modules share a process, and changing that while they run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import connect, manual, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand, ManualGroup
from seamline.cli.options import App, Data, Json

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings

app = typer.Typer(
    add_completion=False,
    cls=ManualGroup,
    help="""Which modules share a process. List, draw and switch topologies.

    `monolith` (one process) and `services` (one process per module) exist always; others are drawn in
    seamline.toml under [topologies.NAME].
    """,
    epilog="""
    seamline topology list              # all of them, and which one runs
    seamline topology show services     # a picture
    seamline topology switch services   # change it now; no request fails
    """,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A topology, as `seamline topology list` has it.")]


@app.command("list", cls=ManualCommand, epilog="seamline topology list --json   # for a script")
def list_all(app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """All topologies, their workloads, and which one runs."""
    settings = connect.read_settings(app_folder, data)
    running = connect.running_topology(settings)
    found = {name: workloads(settings, name) for name in settings.topologies}
    if as_json:
        output.emit({"running": running, "default": settings.app.topology, "topologies": found})
        return

    def note(name: str) -> str:
        if name == running:
            return "[bold green]runs now[/]"
        return "[dim]default of `up`[/]" if name == settings.app.topology else ""

    rows = [[name, str(len(groups)), note(name), said(groups)] for name, groups in found.items()]
    columns = {"topology": "fixed", "processes": "right", "": "fixed", "workloads": "left"}
    output.console().print(output.table(columns, rows))


def said(groups: Mapping[str, Sequence[str]]) -> str:
    """Workloads in words: a module alone by its name, a group with its members."""
    parts = [name if modules == (name,) else f"{name} ({', '.join(modules)})" for name, modules in groups.items()]
    return "; ".join(parts)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline topology show           # the one that runs, or the default
    seamline topology show services  # before switching to it
    """,
)
def show(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A topology; the one that runs if left out.")] = (
        None
    ),
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Draw a topology: which module stands in which workload, and where the public comes in."""
    settings = connect.read_settings(app_folder, data)
    running = connect.running_topology(settings)
    wanted = known(settings, name or running or settings.app.topology)
    if as_json:
        output.emit({"topology": wanted, "running": wanted == running, "workloads": workloads(settings, wanted)})
        return
    state = "runs now" if wanted == running else "does not run now"
    typer.echo(f"{manual.strong(wanted)} of {settings.app.name}, {state}\n")
    typer.echo(draw(settings, wanted))


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline topology switch services           # one process per module
    seamline topology switch monolith           # and back
    seamline topology switch services --watch   # and then watch the calls between the processes
    """,
)
def switch(
    name: Name,
    watch: Annotated[bool, typer.Option("--watch", help="Show `seamline top` when it is done.")] = False,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Change the topology of the running application. No request fails.

    The new workloads are started and must be ready; new calls and the public address move to them; the old
    ones finish what they have and end. If a new workload does not get ready, everything stays as it was.
    """
    settings = connect.read_settings(app_folder, data)
    wanted = known(settings, name)
    if watch and as_json:
        raise ArgumentError("--watch and --json are both given", "Choose one")
    with output.progress(quiet=as_json) as say:
        result = connect.ask(settings, "switch", say, topology=wanted)
    if as_json:
        output.emit(result)
        return
    report(settings, wanted, result)
    if watch:
        from seamline.cli import top

        asyncio.run(top.watch(settings))


def report(settings: Settings, wanted: str, result: Mapping[str, Any]) -> None:
    """How it looks now, and what the switch did."""
    typer.echo(f"{manual.strong(wanted)} of {settings.app.name} runs.\n")
    typer.echo(draw(settings, wanted))
    typer.echo("\n" + change(result))


def change(result: Mapping[str, Any]) -> str:
    """What a switch, a scaling or a restart did, in one sentence or two."""
    started: list[str] = list(result.get("started") or ())
    stopped: list[str] = list(result.get("stopped") or ())
    if not started and not stopped:
        return "It was so already; nothing was started or stopped."
    parts = [
        f"started {', '.join(started)}" if started else "",
        f"drained and ended {', '.join(stopped)}" if stopped else "",
    ]
    said = f"{'; '.join(filter(None, parts))}."
    cut = "" if result.get("drained", True) else " Not everything in flight was finished within the drain time."
    return f"In {output.lasted(float(result.get('seconds', 0)))}: {said}{cut}"


def known(settings: Settings, name: str) -> str:
    if name not in settings.topologies:
        from difflib import get_close_matches

        near = get_close_matches(name, settings.topologies, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(settings.topologies)}"
        raise ArgumentError(f"there is no topology {name!r}", remedy)
    return name


def workloads(settings: Settings, name: str) -> dict[str, tuple[str, ...]]:
    from seamline.run.placement import groups

    return groups(settings, name)


def draw(settings: Settings, name: str) -> str:
    """The picture of one topology, with the replicas that ``[replicas]`` asks for."""
    from seamline.cli import picture
    from seamline.run.placement import front_module, place

    placed = place(settings, name)
    counts = {workload.name: workload.replicas for workload in placed}
    modules = {workload.name: workload.modules for workload in placed}
    return picture.topology(modules, counts, front_module(settings), manual.width())
