"""``seamline models``: which versions answer, their files, how well they do, and the AI gateway's keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import connect, models_datasets, models_files, models_gateway, models_quality, output
from seamline.cli.manual import ManualCommand, ManualGroup
from seamline.cli.models_change import change
from seamline.cli.options import App, Data, Json

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings

app = typer.Typer(
    add_completion=False,
    cls=ManualGroup,
    help="""Models: which versions answer, their files, and how well they do.

    What answers is asked of the running application, or changed on disk where none runs. Every change is kept, with
    who made it and why, and can be taken back at once.
    """,
    epilog="""
    seamline models list
    seamline models add Similar minilm-2 hf:sentence-transformers/all-MiniLM-L6-v2
    seamline models weights Similar minilm-2=10 --why "try the new one"   # a canary
    seamline models promote Similar minilm-2
    seamline models rollback Similar                                       # at once, everywhere
    """,
)
BAR = 20
Contract = Annotated[str, typer.Argument(metavar="CONTRACT", help="Which the models answer; see `list`.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="For whoever reads the history.")]


@app.command(
    "list",
    cls=ManualCommand,
    epilog="""
    seamline models list
    seamline models list --json
    """,
)
def list_models(app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """Contracts with the versions that answer them, and the models in the registry."""
    found = told(connect.read_settings(app_folder, data))
    if as_json:
        output.emit({"contracts": found["contracts"], "registry": found["registry"]})
        return
    if found["contracts"]:
        output.console().print(_contracts(found["contracts"]))
    if found["registry"]:
        typer.echo("")
        output.console().print(models_files.table(found["registry"]))
    if not found["contracts"] and not found["registry"]:
        typer.echo("There are no models. Declare one with @module.model, or add files with `seamline models add`.")


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline models show Similar
    seamline models show Similar --json
    """,
)
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A contract, or a model in the registry.")],
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """One of them: shares, how its versions differ, what shadows said, and every change."""
    from seamline.models.registry.errors import UnknownArtefactError

    found = told(connect.read_settings(app_folder, data), name)
    contract = found["contracts"].get(name)
    if contract is None and not found["registry"]:
        raise UnknownArtefactError(f"no contract and no model is called {name!r}", "`seamline models list` has them.")
    if as_json:
        output.emit(found)
        return
    console = output.console()
    if contract is not None:
        console.print(_contracts({name: contract}))
        for line in _differences(contract):
            typer.echo(line)
        if contract["shadow"]:
            typer.echo("")
            console.print(_shadows(contract["shadow"]))
    if found["registry"]:
        typer.echo("")
        console.print(models_files.table(found["registry"]))
    if found["history"]:
        typer.echo("")
        console.print(_history(found["history"]))


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline models promote Similar minilm-2
    seamline models promote Similar minilm-2 --why "better for a week"
    """,
)
def promote(
    contract: Contract,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Which answers everything from now on.")],
    why: Why = "",
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Have one version answer everything; it is loaded first."""
    settings = connect.read_settings(app_folder, data)
    with output.progress(quiet=as_json) as say:
        made = change(settings, "model_promote", say, contract=contract, version=version, why=why)
    _done(contract, made, as_json=as_json)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline models weights Similar minilm-2=10              # a tenth; the champion has the rest
    seamline models weights Similar minilm-2=10 minilm-3=10
    seamline models weights Similar minilm-2=0               # none
    """,
)
def weights(
    contract: Contract,
    shares: Annotated[list[str], typer.Argument(metavar="VERSION=PERCENT...", help="The champion has the rest.")],
    why: Why = "",
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Give versions a share of the calls. A canary that is worse is rolled back by itself."""
    from seamline.models.rollout.split import parse_shares

    given = parse_shares(shares)
    settings = connect.read_settings(app_folder, data)
    with output.progress(quiet=as_json) as say:
        made = change(settings, "model_weights", say, contract=contract, shares=given, why=why)
    _done(contract, made, as_json=as_json)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline models shadow Similar minilm-3    # asked too, and nobody gets its answers
    seamline models shadow Similar             # no more
    """,
)
def shadow(
    contract: Contract,
    versions: Annotated[list[str] | None, typer.Argument(metavar="[VERSION...]", help="None for no shadow.")] = None,
    why: Why = "",
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Have versions asked for comparison only. `show` says how often they agree."""
    settings = connect.read_settings(app_folder, data)
    with output.progress(quiet=as_json) as say:
        made = change(settings, "model_shadow", say, contract=contract, versions=versions or [], why=why)
    _done(contract, made, as_json=as_json)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline models rollback Similar --why "complaints"
    """,
)
def rollback(
    contract: Contract, why: Why = "", app_folder: App = None, data: Data = None, as_json: Json = False
) -> None:
    """What held before the last change holds again, at once and in every process."""
    made = change(connect.read_settings(app_folder, data), "model_rollback", None, contract=contract, why=why)
    _done(contract, made, as_json=as_json)


models_files.add_to(app)
models_quality.add_to(app)
models_datasets.add_to(app)
models_gateway.add_to(app)


def told(settings: Settings, name: str = "") -> dict[str, Any]:
    """What the running application says, or what is on disk and in its code."""
    from seamline.cli.models_change import on_disk
    from seamline.run.errors import NotRunningError

    try:
        return connect.ask(settings, "models", name=name)
    except NotRunningError:
        return on_disk(settings, name)


def bar(share: float) -> str:
    """A share as a picture, which is never empty for what is not nothing."""
    filled = round(share * BAR) or int(share > 0)
    return "█" * filled + "░" * (BAR - filled)


def _done(contract: str, made: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.emit(made)
        return
    for version, share in made["split"]["weights"].items():
        role = "champion" if version == made["split"]["champion"] else ""
        typer.echo(f"{bar(share)} {share:>6.1%}  {output.harmless(version)}  {role}".rstrip())
    count = made.get("processes", 0)
    where = f"in {count} process{'es' if count > 1 else ''}" if count else "when it is started"
    typer.echo(f"It holds {where}. `seamline models rollback {contract}` takes it back.")


def _contracts(contracts: Mapping[str, Any]) -> Any:
    columns = {
        "contract": "fixed", "module": "fixed", "version": "fixed", "share": "fixed", "": "right", "role": "fixed",
        "calls": "right", "errors": "right", "mean": "right", "score": "right",
    }  # fmt: skip
    rows: list[list[str]] = []
    for name, contract in contracts.items():
        head = [name, contract["module"]]
        for version, each in contract["versions"].items():
            calls = each.get("calls")
            errors = f"{each['errors'] / calls:.1%}" if calls else "-"
            score = "-" if each.get("quality") is None else f"{each['quality']:.3f}"
            share, mean = each["share"], output.milliseconds(each.get("ms"))
            shown = str(calls) if calls is not None else "-"
            rows.append([*head, version, bar(share), f"{share:.1%}", each["role"], shown, errors, mean, score])
            head = ["", ""]
    return output.table(columns, [[output.harmless(cell) for cell in row] for row in rows])


def _differences(contract: Mapping[str, Any]) -> list[str]:
    """How sure one may be that versions differ from the champion; it may be looked at at any time."""
    units = {"errors": ("errors", 100, " points"), "ms": ("mean time", 1, " ms"), "quality": ("score", 1, "")}
    lines: list[str] = []
    for version, each in contract["versions"].items():
        for what, found in each.get("beside_champion", {}).items():
            name, scale, unit = units[what]
            low, high = found["low"] * scale, found["high"] * scale
            sure = "differs" if found["p"] < 0.05 else "may be the same"
            lines.append(
                f"{version}: {name} {found['difference'] * scale:+.3g}{unit} beside the champion, within "
                f"{low:+.3g} to {high:+.3g} (p {found['p']:.2g}: {sure})"
            )
    return ["", *lines] if lines else []


def _shadows(shadows: Mapping[str, Any]) -> Any:
    columns = {
        "shadow": "fixed", "same": "right", "different": "right", "failed": "right", "mean": "right",
        "champion's": "right", "such as": "left",
    }  # fmt: skip
    rows: list[list[str]] = []
    for version, each in shadows.items():
        last = each["samples"][-1] if each["samples"] else None
        said = f"{last['method']}{last['arguments']}: {last['ours']} and {last['theirs']}" if last else ""
        counts = [str(each[name]) for name in ("same", "different", "errors")]
        times = [output.milliseconds(each["ms"]), output.milliseconds(each["ours_ms"])]
        rows.append([version, *counts, *times, said])
    return output.table(columns, [[output.plain(cell) for cell in row] for row in rows])


def _history(changes: Sequence[Mapping[str, Any]]) -> Any:
    from seamline.cli.times import clock_time

    columns = {"when": "fixed", "who": "fixed", "what": "fixed", "": "left", "why": "left"}
    rows = [
        [clock_time(each["at_ms"] * 1_000_000)[:-4], each["who"] or "-", each["what"], _after(each), each["why"]]
        for each in changes
    ]
    return output.table(columns, [[output.plain(cell) for cell in row] for row in rows])


def _after(change: Mapping[str, Any]) -> str:
    after: dict[str, Any] = change["after"] or {}
    if "weights" in after:
        shares = ", ".join(f"{version} {share:.0%}" for version, share in after["weights"].items())
        return shares + (f", shadow {', '.join(after['shadow'])}" if after.get("shadow") else "")
    told: dict[str, Any] = after or change["before"] or {}
    return ", ".join(f"{key} {value}" for key, value in told.items() if not str(value).startswith("sha256:"))
