"""``seamline models add|sign|card|alias|remove|verify|clean``: the registry."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import connect, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data, Json

if TYPE_CHECKING:
    from seamline.models.registry import Registry

Reference = Annotated[str, typer.Argument(metavar="MODEL", help="<model>:<version> or <model>@<alias>.")]


def add_to(app: typer.Typer) -> None:
    """The commands of this file."""
    for name, command, examples in (
        ("add", add, _ADD),
        ("card", card, "seamline models card minilm:2   # what people should know of it"),
        ("alias", alias, _ALIAS),
        ("sign", sign, _SIGN),
        ("remove", remove, "seamline models remove minilm:1 --why old"),
        ("verify", verify, "seamline models verify   # exit status 1 if a file is not what it was"),
        ("clean", clean, "seamline models clean   # after `remove`"),
    ):
        app.command(name, cls=ManualCommand, epilog=examples)(command)


_ADD = """
    seamline models add minilm 2 ./weights
    seamline models add minilm 2 hf:sentence-transformers/all-MiniLM-L6-v2 --why "the small one"
    seamline models add minilm 2 s3://models/minilm/2 --metric recall@10=0.41
    seamline models add minilm 2 oci://registry.example/team/minilm:2
    seamline models add churn 7 mlflow:churn/7
    """
_ALIAS = """
    seamline models alias minilm champion 2
    seamline models alias minilm champion --undo   # what was called so before
    """
_SIGN = """
    seamline models sign --new-key models.pem      # prints the public key, for trusted_keys under [models]
    seamline models sign minilm:2 --key models.pem
    """


def add(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="How it is called; a contract's name is found by it.")],
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Never given twice to other files.")],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A folder, hf:, s3://, oci:// or mlflow:.")],
    metric: Annotated[
        list[str] | None, typer.Option("--metric", metavar="NAME=NUMBER", help="For its card; may be repeated.")
    ] = None,
    trained_on: Annotated[
        str, typer.Option("--data-digest", metavar="DIGEST", help="Of what it learned from, for its card.")
    ] = "",
    code: Annotated[str, typer.Option("--commit", metavar="COMMIT", help="Of what trained it, for its card.")] = "",
    parent: Annotated[str, typer.Option("--parent", metavar="MODEL", help="What it was made from, for its card.")] = "",
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="For whoever reads the history.")] = "",
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Fetch the files of a version and keep them: whole, checked, and only what runs no code."""
    from seamline.models.registry import Card, Lineage

    registry = _registry(app_folder, data)
    lineage = Lineage(data=trained_on, code=code, parent=registry.find(parent).digest if parent else "")
    card = Card(metrics=_metrics(metric or []), lineage=lineage)
    told = card if card != Card() else None
    with output.progress(quiet=as_json) as say:
        made = registry.add(name, version, source, card=told, who=getpass.getuser(), why=why, say=say)
    if as_json:
        _emit(made)
        return
    typer.echo(f"{made.name}:{made.version} is kept: {len(made.files)} files, {output.size(made.size)}, {made.digest}")
    if not made.trusted:
        typer.echo(f"It is not signed by a trusted key: `seamline models sign {made.name}:{made.version} --key FILE`.")


def card(model: Reference, app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """What people should know of a version: its card, its files and where it comes from."""
    found = _registry(app_folder, data).find(model)
    if as_json:
        _emit(found)
        return
    about, lineage = found.card, found.card.lineage
    facts = {
        "version": f"{found.name}:{found.version}" + (f" ({', '.join(found.aliases)})" if found.aliases else ""),
        "digest": found.digest,
        "signed by": ", ".join(found.signed_by) or "nobody",
        "licence": about.licence,
        "for": about.intended,
        "not for": about.limits,
        "metrics": ", ".join(f"{name} {value:g}" for name, value in about.metrics.items()),
        "source": lineage.source,
        "learned from": lineage.data,
        "code": lineage.code,
        "made from": lineage.parent,
    }
    for name, text in {**facts, **about.extra}.items():
        if text:
            typer.echo(output.harmless(f"{name:<13} {text}"))
    for path, size in found.files.items():
        typer.echo(output.harmless(f"{'file':<13} {path} ({output.size(size)})"))
    if about.text:
        typer.echo("\n" + "\n".join(output.harmless(line) for line in about.text.splitlines()))


def alias(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="In the registry.")],
    called: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as champion or challenger.")],
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="Which is called so from now on.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Call so what was called so before.")] = False,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="For whoever reads the history.")] = "",
    app_folder: App = None,
    data: Data = None,
) -> None:
    """Call a version by a name that may move. Who uses the name gets it at the next load."""
    registry, who = _registry(app_folder, data), getpass.getuser()
    if bool(version) == undo:
        raise ArgumentError("either a version or --undo", "seamline models alias minilm champion 2")
    if undo:
        version = registry.undo_alias(name, called, who=who, why=why)
    else:
        registry.set_alias(name, called, version, who=who, why=why)
    typer.echo(f"{name}@{called} is {name}:{version}.")


def sign(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="<model>:<version> or <model>@<alias>.")] = "",
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="A private key.")] = None,
    new_key: Annotated[Path | None, typer.Option("--new-key", metavar="FILE", help="Make a private key there.")] = None,
    app_folder: App = None,
    data: Data = None,
) -> None:
    """Vouch for a version with an Ed25519 key. With `trusted_keys` under [models], nothing else is loaded."""
    if new_key is not None and not model and key is None:
        from seamline.models.registry.signing import new_key as make

        typer.echo(make(new_key))
        return
    if not model or key is None or new_key is not None:
        raise ArgumentError("a model and its key belong together", "seamline models sign minilm:2 --key models.pem")
    signature = _registry(app_folder, data).sign(model, key, who=getpass.getuser())
    typer.echo(f"{model} is signed by {signature.key}.")


def remove(
    model: Reference,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="For whoever reads the history.")] = "",
    app_folder: App = None,
    data: Data = None,
) -> None:
    """Forget a version that no alias means. `clean` frees its space."""
    _registry(app_folder, data).remove(model, who=getpass.getuser(), why=why)
    typer.echo(f"{model} is forgotten. `seamline models clean` frees its space.")


def verify(app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """Compare every file in the registry with its digest."""
    damaged = _registry(app_folder, data).verify()
    if as_json:
        output.emit(damaged)
    for what, how in () if as_json else damaged.items():
        typer.echo(output.harmless(f"{what}: {how}"))
    if damaged:
        raise typer.Exit(output.STATUS_FOUND_WANTING)
    if not as_json:
        typer.echo("Every file is what it was.")


def clean(app_folder: App = None, data: Data = None) -> None:
    """Remove the files that no version needs."""
    typer.echo(f"{output.size(_registry(app_folder, data).collect())} are free again.")


def table(registry: Sequence[Mapping[str, Any]]) -> Any:
    """Versions in the registry."""
    columns = {
        "model": "fixed", "version": "fixed", "called": "fixed", "size": "right", "files": "right", "signed": "fixed",
        "from": "left",
    }  # fmt: skip
    rows = [
        [
            each["name"],
            each["version"],
            ", ".join(each["aliases"]) or "-",
            output.size(each["size"]),
            str(len(each["files"])),
            _signed(each),
            each["card"].get("lineage", {}).get("source", "-"),
        ]
        for each in registry
    ]
    return output.table(columns, [[output.plain(cell) for cell in row] for row in rows])


def _signed(version: Mapping[str, Any]) -> str:
    if version["damaged"]:
        return "damaged"
    return "no" if not version["signed_by"] else "yes" if version["trusted"] else "by nobody trusted"


def _registry(app_folder: Path | None, data: Path | None) -> Registry:
    from seamline.models.registry import Registry

    settings = connect.read_settings(app_folder, data)
    settings.prepare_data_folder()
    return Registry.of(settings)


def _metrics(given: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise ArgumentError(f"{text!r} is not NAME=NUMBER", "--metric recall@10=0.41")
    return found


def _emit(made: Any) -> None:
    import msgspec

    output.emit(msgspec.to_builtins(made))
