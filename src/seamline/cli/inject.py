"""``seamline inject``: faults into the calls of the application that runs."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import connect, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data, Json

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings

app = typer.Typer(add_completion=False)


class Kind(StrEnum):
    """The errors that can be injected, by their name on the wire; ``crash`` ends the callee's process."""

    unavailable = "unavailable"
    deadline_exceeded = "deadline_exceeded"
    internal = "internal"
    resource_exhausted = "resource_exhausted"
    permission_denied = "permission_denied"
    crash = "crash"


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline inject Payments.charge --delay-ms 200 --percent 50   # every second charge is slow
    seamline inject Ads --error unavailable                       # every call of a contract fails
    seamline inject Cart.add --error crash --percent 1            # the process that serves it dies
    seamline inject Catalog.get --drop --percent 10               # no answer until the deadline
    seamline inject --clear                                       # all is well again
    """,
)
def inject(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="TARGET", help="Contract.method, or a whole Contract.")
    ] = None,
    delay_ms: Annotated[float | None, typer.Option(metavar="MS", min=0, help="Wait so long before the call.")] = None,
    error: Annotated[
        Kind | None, typer.Option(metavar="ERROR", help="Fail with this error, one of those above.")
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Never answer; the caller's deadline ends it.")] = False,
    percent: Annotated[float, typer.Option(metavar="P", min=0, max=100, help="Of how many calls.")] = 100.0,
    clear: Annotated[bool, typer.Option("--clear", help="Take all injected faults away.")] = False,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Inject delays, errors, drops and crashes into calls of the running application, in every topology.

    The rules given replace those given before, and end with the application. The errors are unavailable,
    deadline_exceeded, internal, resource_exhausted, permission_denied and crash.
    """
    settings = connect.read_settings(app_folder, data)
    rules = rules_of(targets or [], delay_ms, error, percent, drop=drop, clear=clear)
    refuse_unknown(settings, rules)
    result = connect.ask(settings, "inject", rules=rules)
    if as_json:
        output.emit({"rules": rules, **result})
    elif clear:
        typer.echo("No faults are injected any more.")
    else:
        for target in rules:
            parts = [
                f"a delay of {delay_ms:g} ms" if delay_ms else "",
                f"the error {error.value}" if error else "",
                "no answer" if drop else "",
            ]
            typer.echo(f"{target}: {' and '.join(filter(None, parts))} in {percent:g} % of the calls.")
        typer.echo("`seamline inject --clear` ends it.")


def refuse_unknown(settings: Settings, targets: Iterable[str]) -> None:
    """Raise ArgumentError for a target that no contract has: its rule would never do anything."""
    from seamline.kernel.errors import SeamlineError
    from seamline.module.contract import compile_contract
    from seamline.run.application import Application

    try:
        contracts = Application.load(settings.folder, only=(), settings=settings).contracts
    except SeamlineError:
        return  # The files were broken after the start; what runs may know the target all the same.
    known = {name.__name__: tuple(compile_contract(name).methods) for name in contracts}
    for target in targets:
        contract, _, method = target.partition(".")
        if contract not in known:
            raise ArgumentError(f"there is no contract {contract!r}", f"There are {', '.join(known)}")
        if method and method not in known[contract]:
            raise ArgumentError(f"{contract!r} has no method {method!r}", f"It has {', '.join(known[contract])}")


def rules_of(
    targets: list[str], delay_ms: float | None, error: Kind | None, percent: float, *, drop: bool, clear: bool
) -> dict[str, dict[str, Any]]:
    """The rules in the words of ``[mesh]``. Raises ArgumentError where they would do nothing."""
    if clear:
        if targets or delay_ms is not None or error or drop:
            raise ArgumentError("--clear stands with other arguments", "Clear first, then inject anew")
        return {}
    if not targets:
        raise ArgumentError("nothing is named to inject into", "Name a method, Payments.charge, or --clear")
    if not (delay_ms or error or drop):
        raise ArgumentError("nothing is said to inject", "Give --delay-ms, --error or --drop")
    for target in targets:
        contract, dot, method = target.partition(".")
        if not contract.isidentifier() or (dot and not method.isidentifier()):
            raise ArgumentError(f"{target!r} is not a contract or method", "Write Payments or Payments.charge")
    rule: dict[str, Any] = {}
    if delay_ms:
        rule |= {"inject_delay_ms": delay_ms, "inject_delay_percent": percent}
    if error:
        rule |= {"inject_error": error.value, "inject_error_percent": percent}
    if drop:
        rule |= {"inject_drop_percent": percent}
    return dict.fromkeys(targets, rule)
