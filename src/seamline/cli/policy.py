"""``seamline policy``: who may call what, why, and the table tests that keep it so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seamline.cli import manual, modules, output, policy_bundles, policy_record, policy_request
from seamline.cli.manual import ManualCommand, ManualGroup
from seamline.cli.options import App, Data, Json

if TYPE_CHECKING:
    from seamline.mesh.policy import CaseResult, Policy

app = typer.Typer(
    add_completion=False,
    cls=ManualGroup,
    help="""Who may call what: the Cedar files in the policy folder, deny by default.

    A call is the action `Payments.charge`, member of `Payments`; a public request into a module's routes is the
    action `http` of the principal `gateway`. A module may always call itself.
    """,
    epilog="""
    seamline policy test                              # run policy/tests.toml
    seamline policy explain checkout Payments.charge  # which policy decides, or which is missing
    seamline policy list                              # who may call what
    seamline policy record --write                    # narrow it to what was seen, as the policy to come
    seamline policy diff                              # what the policy to come changes
    """,
)

Caller = Annotated[str, typer.Argument(metavar="CALLER", help="The module that calls, or gateway.")]
Call = Annotated[str, typer.Argument(metavar="CALL", help="Contract.method, or http together with --to.")]
To = Annotated[str | None, typer.Option("--to", metavar="MODULE", help="The module whose routes http goes to.")]


@app.command(
    "test",
    cls=ManualCommand,
    epilog="""
    seamline policy test         # a line for each test that fails
    seamline policy test --all   # a line for each test
    seamline policy test --json  # for a pipeline
    """,
)
def run_tests(
    app_folder: App = None,
    every: Annotated[bool, typer.Option("--all", help="Show the tests that pass, too.")] = False,
    coming: Annotated[bool, typer.Option("--next", help="Test the policy to come, in next/.")] = False,
    as_json: Json = False,
) -> None:
    """Run the table tests in tests.toml of the policy folder. The exit status is 1 if one fails."""
    from seamline.mesh.policy import read_cases, run_cases

    policy, folder = load_policy(app_folder)
    if coming:
        policy = policy.candidate() or policy
    results = run_cases(policy, read_cases(folder / "tests.toml"))
    failed = [result for result in results if not result.passed]
    if as_json:
        output.emit(
            {"ok": not failed, "passed": len(results) - len(failed), "tests": [each.to_json() for each in results]}
        )
    else:
        shown = results if every else failed
        if shown:
            output.console().print(output.table(dict.fromkeys(CASE_COLUMNS, "left"), map(case_row, shown)))
            typer.echo()
        typer.echo(f"{len(results) - len(failed)} of {len(results)} policy tests passed.")
    if failed:
        raise typer.Exit(output.STATUS_FOUND_WANTING)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline policy explain checkout Payments.charge
    seamline policy explain gateway http --to frontend --path /admin
    seamline policy explain desk Payments.refund --user ann --role support --arg amount.cents=5001
    """,
)
def explain(
    caller: Caller,
    call: Call,
    to: To = None,
    user: policy_request.User = None,
    role: policy_request.Roles = None,
    arg: policy_request.Args = None,
    attribute: policy_request.Attributes = None,
    agent: policy_request.Agent = None,
    method: policy_request.Method = None,
    path: policy_request.Path_ = None,
    app_folder: App = None,
    as_json: Json = False,
) -> None:
    """Which policy permits or forbids a call, and what it looked at; if none does, the line that would permit it."""
    from seamline.mesh.policy.asking import asking

    policy, _ = load_policy(app_folder)
    asked = policy.world.resolve(call, to)
    fields = policy_request.request_fields(user, role, arg, attribute, agent, method, path)
    request = asking(policy.world, asked, fields, "")
    who = policy.world.caller(caller)
    explanation = policy.explain(who, *asked, request.subject, request.arguments, request.more, closely=True)
    if as_json:
        output.emit(explanation.to_json())
        return
    verdict = "allowed" if explanation.allowed else "denied"
    typer.echo(f"{manual.strong(verdict)}: {explanation.fact}")
    for reason in explanation.reasons:
        typer.echo(f"\n{reason.name}\n")
        typer.echo("\n".join(f"    {line}" for line in reason.text.splitlines()))
    if not explanation.reasons:
        typer.echo("No policy permits it, and deny is the default.")
    for each in explanation.considered:
        typer.echo(f"\n{each.effect} {each.name}: {each.outcome}")
        for at, found in each.looks:
            typer.echo(f"    {at}  is {found}")
    if explanation.remedy:
        typer.echo(f"\n{explanation.remedy}")


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline policy test && seamline policy reload  # what is proven, takes effect
    """,
)
def reload(app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """Read the policy folder again in every process of the running application. A mistake leaves the old in force."""
    from seamline.cli import connect

    load_policy(app_folder)[0].candidate()  # a mistake is told before anybody is asked
    result = connect.ask(connect.read_settings(app_folder, data), "policy")
    if as_json:
        output.emit(result)
    else:
        typer.echo("The policy in the folder is in force.")


@app.command(
    "list",
    cls=ManualCommand,
    epilog="""
    seamline policy list          # callers against contracts
    seamline policy list --calls  # every method and who may call it
    seamline policy list --json   # for a script
    """,
)
def list_all(
    app_folder: App = None,
    calls: Annotated[bool, typer.Option("--calls", help="Every method and who may call it.")] = False,
    as_json: Json = False,
) -> None:
    """Who may call what. In the matrix, `all` is the whole contract and `2/5` two of its five methods.

    With --calls, `desk*` is the desk on conditions: on who asks, or with what.
    """
    policy, _ = load_policy(app_folder)
    permitted, conditional = policy.permitted(), set(policy.conditional())
    if as_json:
        output.emit(
            [{"caller": a, "callee": b, "call": c, "conditional": (a, b, c) in conditional} for a, b, c in permitted]
        )
    elif calls:
        marked = [(a + ("*" if (a, b, c) in conditional else ""), b, c) for a, b, c in permitted]
        rows = [
            (name, callee, ", ".join(caller for caller, b, c in marked if (b, c) == (callee, name)) or "nobody")
            for callee, name in policy.world.named_calls()
        ]
        output.console().print(output.table(dict.fromkeys(("call", "of", "may be called by"), "left"), rows))
    else:
        print_matrix(policy, permitted)


app.command(cls=ManualCommand, epilog="seamline policy diff  # before `next` becomes the policy")(policy_record.diff)
app.command(
    cls=ManualCommand,
    epilog="""
    seamline policy record          # what could be narrowed
    seamline policy record --write  # as the policy to come, which only tells
    """,
)(policy_record.record)
app.command(cls=ManualCommand, epilog="seamline policy bundle --key policy-key.pem --sequence 12 --out shop-12.bundle")(
    policy_bundles.bundle
)
app.command(cls=ManualCommand, epilog="seamline policy apply shop-12.bundle")(policy_bundles.apply)
app.command(cls=ManualCommand, epilog="seamline policy rollback")(policy_bundles.rollback)

CASE_COLUMNS = ("", "caller", "call", "expected", "found", "because of")


def case_row(result: CaseResult) -> tuple[str, ...]:
    explanation = result.explanation
    where = f"{result.case.call} of {explanation.callee}"
    because = ", ".join(reason.name for reason in explanation.reasons) or "no policy permits it"
    mark = "[green]pass[/]" if result.passed else "[red]FAIL[/]"
    return mark, result.case.caller, where, result.case.expect, result.found, because.replace("[", "\\[")


def print_matrix(policy: Policy, permitted: list[tuple[str, str, str]]) -> None:
    """Callers down, contracts across; a caller or contract with nothing to show is left out."""
    allowed = {(caller, call) for caller, _, call in permitted}
    methods = {contract: names for contract, (_, names) in policy.world.contracts.items() if names}
    rows: list[tuple[str, ...]] = []
    for caller in policy.world.callers:
        cells = [share(sum((caller, f"{c}.{n}") in allowed for n in names), len(names)) for c, names in methods.items()]
        if any(cells):
            rows.append((caller, *cells))
    output.console().print(output.table(dict.fromkeys(("", *methods), "left"), rows))
    public = [callee for caller, callee, call in permitted if caller == "gateway" and call == "http"]
    typer.echo(f"\npublic requests: {', '.join(public) or 'nowhere'}")


def share(count: int, total: int) -> str:
    if not count:
        return ""
    return "all" if count == total else f"{count}/{total}"


def load_policy(app_folder: Path | None) -> tuple[Policy, Path]:
    """The application's policy and its folder; raises every mistake in it at once."""
    from seamline.mesh.errors import PolicyError

    application = modules.load_application(app_folder)
    try:
        return application.policy(), application.settings.policy_folder
    except PolicyError as error:
        if len(error.findings) == 1:
            raise
        raise ExceptionGroup("the policy is wrong", list(error.findings)) from None
