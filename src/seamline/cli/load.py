"""``seamline load``: shoppers, a topology that changes under them, and the count of what failed."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import connect, output
from seamline.cli.errors import ArgumentError, NoApplicationError, ScenarioError
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data, Json

if TYPE_CHECKING:
    from seamline.cli.load_engine import Load, Plan, Scenario
    from seamline.cli.load_report import Report
    from seamline.cli.load_switch import Switching
    from seamline.kernel.settings import Settings

app = typer.Typer(add_completion=False)

DURATION_DEFAULT_S = 10.0


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline load                                   # ten seconds, ten shoppers, as fast as they get answers
    seamline load --users 50 --rate 200 --duration 60   # 200 steps a second, whatever the server does
    seamline load --switches 10                     # the proof: ten topology switches under load
    seamline load --switches 4 --between duo,services   # between two topologies of your own
    seamline load --url http://127.0.0.1:8080 --requests 10000 --json   # for a script
    """,
)
def load(
    app_folder: App = None,
    data: Data = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where to shop; otherwise the running application's.")
    ] = None,
    users: Annotated[int, typer.Option(metavar="N", min=1, help="How many shoppers, each with a connection.")] = 10,
    rate: Annotated[
        float | None,
        typer.Option(metavar="R", min=0.001, help="Steps a second, by timetable; otherwise as fast as answers come."),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(metavar="S", min=0.001, help="Seconds to shop; 10 if nothing else ends it.")
    ] = None,
    requests: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Stop after so many requests; steps begun are finished.")
    ] = None,
    switches: Annotated[int, typer.Option(metavar="N", min=0, help="Switch the topology so many times meanwhile.")] = 0,
    between: Annotated[
        str, typer.Option(metavar="A,B", help="The topologies to switch between.")
    ] = "monolith,services",
    pause: Annotated[float, typer.Option(metavar="S", min=0, help="Seconds of shopping around a switch.")] = 1.0,
    timeout: Annotated[float, typer.Option(metavar="S", min=0.1, help="When a request has failed.")] = 30.0,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed takes the same choices.")] = 1,
    trust_any: Annotated[bool, typer.Option("--trust-any", help="Accept any TLS certificate.")] = False,
    as_json: Json = False,
) -> None:
    """Send shoppers to the application and count what failed; with --switches, change the topology meanwhile.

    The scenario is `scenario` in the Python module <package>.load of the application: a list of
    (weight, name, step), where a step is an async function of one Shopper with .get(path) and
    .post(path, form). Without one, every step is GET /.

    A request fails if no answer comes or its status is 400 or more (unless the step expects it). A step also
    fails if an assertion in it does. The exit status is 1 if anything failed.
    """
    from seamline.cli.load_client import Target
    from seamline.cli.load_engine import Plan
    from seamline.cli.load_report import Report
    from seamline.cli.load_switch import Switching

    settings = known_settings(app_folder, data, needed=url is None or switches > 0)
    name, scenario = find_scenario(settings)
    if duration is None and requests is None and not switches:
        duration = DURATION_DEFAULT_S
    where = url or connect.public_url(connect.ask(settings, "status"), settings) if settings else url
    assert where is not None
    plan = Plan(
        target=Target.parse(where, trust_any=trust_any),
        scenario=scenario,
        users=users,
        rate=rate,
        duration_s=duration,
        requests=requests,
        seed=seed,
        timeout_s=timeout,
    )
    switching = None
    if switches and settings is not None:
        switching = Switching(settings, two_topologies(between, settings), switches, pause)
    report = Report(plan, name, quiet=as_json)
    load_run = run(plan, switching, report)
    if as_json:
        output.emit(report.to_json(load_run.tally, switching))
    else:
        report.finish(load_run.tally, switching)
    if switching is not None and switching.error is not None:
        if as_json:
            raise typer.Exit(output.status_of(switching.error.code))
        raise switching.error
    if load_run.tally.failed or load_run.tally.failed_steps:
        raise typer.Exit(output.STATUS_FOUND_WANTING)


def run(plan: Plan, switching: Switching | None, report: Report) -> Load:
    """Shop to the end on an event loop of its own; Ctrl-C ends the shopping, not the report."""
    from seamline.cli.load_engine import Load

    loop_factory = None
    if sys.platform != "win32":
        import uvloop

        loop_factory = uvloop.new_event_loop

    async def shop() -> Load:
        load_run = Load(plan, open_ended=switching is not None)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, load_run.stop)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(report.watch(load_run, switching), name="progress")
            if switching is None:
                await load_run.run()
            else:
                shopping = group.create_task(load_run.run(), name="shoppers")
                try:
                    await switching.run(load_run)
                finally:
                    load_run.stop()
                await shopping
            watching.cancel()
        return load_run

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(shop())


def known_settings(app_folder: Path | None, data: Path | None, *, needed: bool) -> Settings | None:
    try:
        return connect.read_settings(app_folder, data)
    except NoApplicationError:
        if needed or app_folder is not None:
            raise
        return None


def two_topologies(between: str, settings: Settings) -> tuple[str, str]:
    names = tuple(name.strip() for name in between.split(","))
    if len(names) != 2 or names[0] == names[1]:
        raise ArgumentError(f"--between is {between!r}", "Name two topologies, monolith,services")
    for name in names:
        if name not in settings.topologies:
            raise ArgumentError(f"there is no topology {name!r}", f"There are {', '.join(settings.topologies)}")
    return names[0], names[1]


def find_scenario(settings: Settings | None) -> tuple[str, Scenario]:
    """The application's scenario and where it stands; GET / where there is none."""
    from importlib.util import find_spec

    from seamline.cli.load_engine import DEFAULT_SCENARIO
    from seamline.cli.load_report import NO_SCENARIO

    if settings is None or not settings.app.modules:
        return NO_SCENARIO, DEFAULT_SCENARIO
    root = settings.app.modules[0].partition(".")[0]
    sys.path.insert(0, str(settings.folder))
    try:
        package = find_spec(root)
        if package is None or package.submodule_search_locations is None or find_spec(f"{root}.load") is None:
            return NO_SCENARIO, DEFAULT_SCENARIO
        return f"{root}.load", checked(f"{root}.load")
    finally:
        sys.path.remove(str(settings.folder))


def checked(name: str) -> Scenario:
    """Import the scenario. Raises ScenarioError with what is wrong about it."""
    from importlib import import_module

    try:
        scenario = getattr(import_module(name), "scenario", None)
    except Exception as error:
        raise ScenarioError(f"{name} cannot be imported: {type(error).__name__}: {error}", place=name) from error
    form = "Write scenario = [(weight, name, async function of one Shopper), ...]"
    if not isinstance(scenario, list | tuple) or not scenario:
        raise ScenarioError(f"scenario is {scenario!r}", form, place=name)
    found: list[Any] = list(scenario)  # pyright: ignore[reportUnknownArgumentType]
    for entry in found:
        match entry:
            case (int(weight), str(), step) if weight > 0 and callable(step):
                continue
            case _:
                raise ScenarioError(f"the entry {entry!r} does not fit", form, place=name)
    names = [entry[1] for entry in found]
    if len(set(names)) < len(names):
        raise ScenarioError("two steps of the scenario have one name", "Name each differently", place=name)
    return found
