"""``seamline drill``: faults planted in the running application, and whether they are found."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from seamline.cli import connect, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand, ManualGroup
from seamline.cli.options import App, Data, Json

app = typer.Typer(
    add_completion=False,
    cls=ManualGroup,
    help="""Fault drills: plant a fault in the running application, and see whether it is noticed and explained.

    A drill ends by itself: after its time, when this command ends, and when the supervisor does. While it runs, calls
    fail or wait, as they would. Explanation is not told of drills.
    """,
    epilog="""
    seamline drill list                                          # the faults there are, and what runs
    seamline drill run delay --module cart --amount 200 --for 30 # every call of cart waits for 200 ms
    seamline drill run exception --module payments --method Payments.charge --share 0.2
    seamline drill run network --module catalog --caller frontend
    """,
)


@app.command(
    "list",
    cls=ManualCommand,
    epilog="""
    seamline drill list --json
    """,
)
def list_faults(app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """The faults that can be planted, and the drills that run now."""
    from seamline.observe.drills.catalog import FAULTS
    from seamline.run.errors import NotRunningError

    settings = connect.read_settings(app_folder, data)
    try:
        running: list[dict[str, Any]] = connect.ask(settings, "drill", operation="list")["drills"]
    except NotRunningError:
        running = []
    if as_json:
        faults = [
            {"name": each.name, "says": each.says, "amount": each.amount, "unit": each.unit, "share": each.share}
            for each in FAULTS.values()
        ]
        output.emit({"faults": faults, "running": running})
        return
    rows = [
        (
            each.name,
            f"{each.amount:g} {each.unit}" if each.unit else "",
            f"{each.share:.0%}",
            each.says + ("" if each.one_process else "; not in one process"),
        )
        for each in FAULTS.values()
    ]
    columns = {"FAULT": "fixed", "AMOUNT": "fixed", "OF": "right", "WHAT IT DOES": "left"}
    output.console().print(output.table(columns, rows))
    for each in running:
        typer.echo(f"{each['id']}: {each['fault']} on {each['method'] or each['module']}, {each['left_s']:g} s left")


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline drill run block --module recommendations --for 20
    seamline drill run slow-sql --module cart --amount 100
    """,
)
def run(
    fault: Annotated[str, typer.Argument(metavar="FAULT", help="Its name, from `seamline drill list`.")],
    module: Annotated[str, typer.Option("--module", metavar="MODULE", help="Where to plant it.")],
    method: Annotated[
        str, typer.Option("--method", metavar="METHOD", help="Only in this one, Cart.add, or in a contract.")
    ] = "",
    caller: Annotated[
        str, typer.Option("--caller", metavar="MODULE", help="Of a fault on the way: only to this caller.")
    ] = "",
    amount: Annotated[
        float | None, typer.Option("--amount", metavar="N", min=0, help="How much, in the unit of the list.")
    ] = None,
    share: Annotated[
        float | None, typer.Option("--share", metavar="S", min=0, max=1, help="Of how many calls, 0.2 for a fifth.")
    ] = None,
    for_s: Annotated[float, typer.Option("--for", metavar="SECONDS", min=1, help="How long.")] = 30.0,
    yes: Annotated[bool, typer.Option("--yes", help="Also where others can reach the application.")] = False,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Plant a fault, hold it for a while, and take it away again."""
    settings = connect.read_settings(app_folder, data)
    order: dict[str, Any] = {
        "fault": fault, "module": module, "method": method, "caller": caller, "amount": amount, "share": share,
        "for_s": for_s, "yes": yes, "watched": True,
    }  # fmt: skip
    began = connect.ask(settings, "drill", operation="run", **{k: v for k, v in order.items() if v not in (None, "")})
    if not as_json:
        typer.echo(f"{began['id']}: {fault} on {method or module} for {for_s:g} s. Ctrl-C ends it.")
    try:
        ended = connect.ask(settings, "drill", operation="watch", id=began["id"])
    except KeyboardInterrupt:
        ended = connect.ask(settings, "drill", operation="end", id=began["id"])
    if as_json:
        output.emit(ended)
    else:
        typer.echo(f"Over; it struck {ended['struck']} times. See `seamline incidents`.")


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline drill score --app examples/boutique                # each fault once, in both topologies
    seamline drill score --rounds 3 --rate 40 --quiet 3600      # thrice, and an hour each without any
    seamline drill score --faults delay,network --topologies services
    """,
)
def score(
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", min=1, help="How often each fault.")] = 1,
    rate: Annotated[float, typer.Option("--rate", metavar="R", min=0.1, help="Steps of shoppers a second.")] = 20.0,
    users: Annotated[int, typer.Option("--users", metavar="N", min=1, help="How many shoppers.")] = 30,
    topologies: Annotated[
        str, typer.Option("--topologies", metavar="A,B", help="In which, one after the other.")
    ] = "monolith,services",
    faults: Annotated[str, typer.Option("--faults", metavar="A,B", help="Only these.")] = "",
    warm_s: Annotated[float, typer.Option("--warm", metavar="S", min=20, help="Load before the first.")] = 50.0,
    quiet_s: Annotated[
        float, typer.Option("--quiet", metavar="S", min=0, help="Load without a fault, for false alarms.")
    ] = 45.0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Decides where faults are planted.")] = 1,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Data and results; a second run goes on where it ended.")
    ] = Path(".seamline-drills"),
    app_folder: App = None,
    as_json: Json = False,
) -> None:
    """Start the application under load, plant each fault, and score whether it was noticed and explained.

    Beside each figure stands what plain methods make of the same windows, and chance.
    """
    import msgspec

    from seamline.cli.drill_score import Results, Wanted, score_all
    from seamline.cli.load import find_scenario
    from seamline.cli.load_client import Target
    from seamline.cli.load_engine import Plan
    from seamline.observe.drills.catalog import FAULTS
    from seamline.observe.drills.scoring import scores, table

    settings = connect.read_settings(app_folder)
    names = [each.strip() for each in faults.split(",") if each.strip()] or list(FAULTS)
    unknown = [each for each in names if each not in FAULTS]
    if unknown:
        raise ArgumentError(f"there is no fault {unknown[0]!r}", f"There are {', '.join(FAULTS)}")
    _, scenario = find_scenario(settings)
    out.mkdir(parents=True, exist_ok=True)
    results = Results.at(out / "results.txt")
    wanted = Wanted(
        settings=settings,
        folder=out,
        plan=lambda url: Plan(target=Target.parse(url), scenario=scenario, users=users, rate=rate, seed=seed),
        topologies=[each.strip() for each in topologies.split(",")],
        faults=names,
        rounds=rounds,
        warm_s=warm_s,
        quiet_s=quiet_s,
        seed=seed,
    )

    def say(text: str) -> None:
        typer.echo(text, err=as_json)

    asyncio.run(score_all(wanted, results, say))
    found = scores(results.rounds)
    if as_json:
        output.emit({name: msgspec.to_builtins(value) for name, value in
                     (("scores", found), ("rounds", results.rounds), ("quiet", results.quiets))})  # fmt: skip
        return
    heads, rows = table(found)
    output.console().print(output.table(dict.fromkeys(heads, "fixed"), rows))
    for each in results.quiets:
        cried = f": {'; '.join(each.incidents)}" if each.incidents else ""
        typer.echo(f"{each.topology}: {len(each.incidents)} false alarms in {each.seconds / 60:.0f} min of load{cried}")
