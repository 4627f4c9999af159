"""``seamline contracts``: what modules offer one another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import manual, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand, ManualGroup
from seamline.cli.options import App, Json

if TYPE_CHECKING:
    from seamline.module.contract import ContractSpec, MethodSpec
    from seamline.module.evolution import Change

app = typer.Typer(
    add_completion=False,
    cls=ManualGroup,
    invoke_without_command=True,
    epilog="""
    seamline contracts list                  # all of them
    seamline contracts show Payments         # one, with its methods
    seamline contracts show Payments --json  # with the JSON schema of every request and result
    seamline contracts diff main             # what changed since a commit, and whom it breaks
    seamline contracts lock                  # keep what is promised now; `seamline check` holds you to it
    seamline contracts --asyncapi            # the events as an AsyncAPI 3.0 document
    """,
)


@app.callback()
def contracts(
    context: typer.Context,
    asyncapi: Annotated[bool, typer.Option("--asyncapi", help="Print an AsyncAPI 3.0 document of the events.")] = False,
    app_folder: App = None,
) -> None:
    """The contracts of the application: methods, types, faults, events and JSON schema."""
    if asyncapi:
        from seamline.cli import modules
        from seamline.events.asyncapi import asyncapi_document

        application = modules.load_application(app_folder)
        output.emit(asyncapi_document(application.settings, application.events, application.heard()))
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list", cls=ManualCommand, epilog="seamline contracts list --json   # for a script")
def list_all(app_folder: App = None, as_json: Json = False) -> None:
    """All contracts: who provides them, how many methods, faults and events they have."""
    found = specs(app_folder)
    if as_json:
        output.emit(
            [
                {
                    "contract": name,
                    "module": module,
                    "methods": list(spec.methods),
                    "faults": list(spec.faults),
                    "events": list(spec.events),
                }
                for name, (module, spec) in found.items()
            ]
        )
        return
    output.console().print(
        output.table(
            {"contract": "fixed", "module": "fixed", "methods": "left", "faults": "left", "events": "left"},
            [
                [name, module, ", ".join(spec.methods), ", ".join(spec.faults), ", ".join(spec.events)]
                for name, (module, spec) in found.items()
            ],
        )
    )


@app.command(cls=ManualCommand, epilog="seamline contracts show Payments   # its methods, faults and events")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A contract, such as Payments.")],
    app_folder: App = None,
    as_json: Json = False,
) -> None:
    """One contract: its methods, types, faults and events; with --json also the JSON schema on the wire."""
    found = specs(app_folder)
    if name not in found:
        raise ArgumentError(f"there is no contract {name!r}", f"There are {', '.join(sorted(found)) or 'none'}")
    module, spec = found[name]
    if as_json:
        output.emit(described(module, spec))
        return
    typer.echo(f"{manual.strong(spec.name)}, provided by module {module}")
    if spec.doc:
        typer.echo("\n" + manual.paragraphs(spec.doc))
    typer.echo("\n" + manual.section("Methods", manual.columns(rows(spec), left_max=90)))
    for title, types in (("Faults", spec.faults), ("Events", spec.events)):
        if types:
            lines = [(name, manual.summary(cls.__doc__)) for name, cls in types.items()]
            typer.echo("\n" + manual.section(title, manual.columns(lines)))


def specs(app_folder: Any) -> dict[str, tuple[str, ContractSpec]]:
    from seamline.cli import modules
    from seamline.module.contract import compile_contract

    application = modules.load_application(app_folder)
    return {
        contract.__name__: (module, compile_contract(contract)) for contract, module in application.contracts.items()
    }


def rows(spec: ContractSpec) -> list[tuple[str, str]]:
    return [(signature(method), ", ".join(traits(method))) for method in spec.methods.values()]


def signature(method: MethodSpec) -> str:
    """``charge(order_id: str, amount: Money) -> Charge``, as it stands in the contract."""
    from seamline.kernel.codec import type_name

    parameters = ", ".join(
        f"{p.name}: {type_name(p.annotation)}" + ("" if p.required else f" = {p.default!r}") for p in method.parameters
    )
    returns = method.signature.return_annotation
    said = returns if isinstance(returns, str) else type_name(returns)
    return f"{method.name}({parameters}) -> {said}"


def traits(method: MethodSpec) -> list[str]:
    found: list[str] = []
    if method.readonly:
        found.append("readonly")
    elif method.idempotent:
        found.append("idempotent")
    if method.timeout_s is not None:
        found.append(f"timeout {method.timeout_s:g} s")
    if method.kind != "unary":
        found.append(method.kind.replace("_", " "))
    return found


def described(module: str, spec: ContractSpec) -> dict[str, Any]:
    return {
        "contract": spec.name,
        "module": module,
        "doc": spec.doc,
        "methods": [
            {
                "method": method.full_name,
                "kind": method.kind,
                "idempotent": method.idempotent,
                "readonly": method.readonly,
                "timeout_s": method.timeout_s,
                "request": method.request.schema(),
                "result": method.result.schema(),
                "item": method.item.schema() if method.item is not None else None,
            }
            for method in spec.methods.values()
        ],
        "faults": {name: manual.summary(fault.__doc__) for name, fault in spec.faults.items()},
        "events": {name: manual.summary(event.__doc__) for name, event in spec.events.items()},
    }


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline contracts diff v1.2         # what changed since the tag
    seamline contracts diff              # what changed since `seamline contracts lock`
    seamline contracts diff main --json  # for a pipeline
    """,
)
def diff(
    reference: Annotated[
        str, typer.Argument(metavar="[REF]", help="A commit, branch or tag; without it, the lock file.")
    ] = "",
    app_folder: App = None,
    as_json: Json = False,
) -> None:
    """What changed in contracts and events, and whom it breaks. The exit status is 1 if it breaks anyone.

    ✗ breaks callers, handlers or stored events; ! needs care, such as an order of updates; + is compatible.
    """
    from seamline.cli import baseline, connect, modules
    from seamline.cli.errors import BaselineError
    from seamline.module.evolution import changes

    folder = connect.find_folder(app_folder)
    before = baseline.at_reference(folder, reference) if reference else baseline.read_lock(folder)
    if before is None:
        raise BaselineError(
            f"there is nothing to compare with: no {baseline.LOCK} and no reference",
            "Write `seamline contracts diff main`, or keep what is promised now: `seamline contracts lock`.",
        )
    found = changes(before, baseline.described(modules.load_application(folder)))
    breaking = any(each.verdict == "breaking" for each in found)
    if as_json:
        output.emit(
            {"since": reference or baseline.LOCK, "breaking": breaking, "changes": [c.to_json() for c in found]}
        )
    else:
        typer.echo(pictured(reference or baseline.LOCK, found))
    if breaking:
        raise typer.Exit(output.STATUS_FOUND_WANTING)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline contracts lock          # write contracts.lock.json, to be kept in the repository
    seamline contracts lock --break  # although it breaks what was promised
    """,
)
def lock(
    app_folder: App = None,
    breaking: Annotated[bool, typer.Option("--break", help="Promise the new, although it breaks the old.")] = False,
) -> None:
    """Write down what the contracts promise now, as contracts.lock.json beside seamline.toml.

    From then on `seamline check` fails on what breaks it. Do it with each release.
    """
    from seamline.cli import baseline, connect, modules
    from seamline.cli.errors import BaselineError
    from seamline.module.evolution import changes

    folder = connect.find_folder(app_folder)
    now = baseline.described(modules.load_application(folder))
    before = None if breaking else baseline.read_lock(folder)
    broken = [each for each in changes(before, now) if each.verdict == "breaking"] if before else []
    if broken:
        raise BaselineError(
            f"{len(broken)} change{'s' if len(broken) > 1 else ''} would break what {baseline.LOCK} promises, "
            f"the first {spot(broken[0])}: {broken[0].fact}",
            "`seamline contracts diff` shows them; with --break the lock is written all the same.",
        )
    typer.echo(f"Wrote {_from_here(baseline.write_lock(folder, now))}.")


def _from_here(file: Path) -> Path:
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


SIGNS = {"breaking": "✗", "care": "!", "compatible": "+"}


def spot(change: Change) -> str:
    """``Inventory.reserve lines[].pieces``."""
    return f"{change.name} {aloud(change.path)}".rstrip()


def aloud(path: str) -> str:
    """A path as people say it: ``result.reason`` for ``->.reason``."""
    return path.replace("->", "result", 1).replace("<-", "stream", 1)


def pictured(since: str, found: list[Change]) -> str:
    """The changes by module and name, worst first."""
    if not found:
        return f"Nothing changed since {since}."
    counts = {verdict: sum(each.verdict == verdict for each in found) for verdict in SIGNS}
    said = f"{counts['breaking']} breaking, {counts['care']} to take care of, {counts['compatible']} compatible"
    lines = [f"Since {since}: {said}."]
    module = name = ""
    for each in found:
        if each.module != module:
            lines += ["", manual.strong(each.module)]
            module, name = each.module, ""
        if each.name != name:
            lines.append(f"  {each.what} {each.name}")
            name = each.name
        lines.append(f"    {SIGNS[each.verdict]} {f'{aloud(each.path)}: ' if each.path else ''}{each.fact}")
        if each.breaks:
            lines.append(f"        {'breaks' if each.verdict == 'breaking' else 'beware'}: {'; '.join(each.breaks)}")
        if each.remedy:
            lines.append(f"        {each.remedy}")
    return "\n".join(lines)
