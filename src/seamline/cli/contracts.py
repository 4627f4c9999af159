"""``seamline contracts``: what modules offer one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import manual, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand, ManualGroup
from seamline.cli.options import App, Json

if TYPE_CHECKING:
    from seamline.module.contract import ContractSpec, MethodSpec

app = typer.Typer(
    add_completion=False,
    cls=ManualGroup,
    help="The contracts of the application: methods, types, faults, events and JSON schema.",
    epilog="""
    seamline contracts list                  # all of them
    seamline contracts show Payments         # one, with its methods
    seamline contracts show Payments --json  # with the JSON schema of every request and result
    """,
)


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
