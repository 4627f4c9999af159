"""``seamline sagas``: what goes on, what is stuck and why, and the hand of a person on it."""

from __future__ import annotations

import getpass
import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import connect, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand, ManualGroup
from seamline.cli.options import App, Data, Json

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings

app = typer.Typer(
    add_completion=False,
    cls=ManualGroup,
    help="""Sagas: what goes on, what is stuck and why, and what a person can do about it.

    All of it is asked of the running application. A saga that is stuck loses nothing: it waits for somebody to act.
    """,
    epilog="""
    seamline sagas list --status stuck
    seamline sagas show 019ab2c3d4e5f60718293a4b5c6d
    seamline sagas approve 019ab2c3d4e5f60718293a4b5c6d fraud --by ada
    """,
)

Id = Annotated[str, typer.Argument(metavar="ID", help="Of the saga; see `list`.")]
Module = Annotated[str | None, typer.Option("--module", metavar="MODULE", help="Only this module's sagas.")]


@app.command(
    "list",
    cls=ManualCommand,
    epilog="""
    seamline sagas list
    seamline sagas list --status stuck --json
    seamline sagas list --type checkout --key order-17 --since 2026-03-01T00:00:00Z
    """,
)
def list_sagas(
    kind: Annotated[str | None, typer.Option("--type", metavar="SAGA", help="Only of this type.")] = None,
    status: Annotated[
        str | None,
        typer.Option(
            "--status", metavar="STATUS", help="active, running, undoing, stuck, succeeded, failed, cancelled."
        ),
    ] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Only keys that begin so.")] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="Only what began then or later.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=1000, help="How many.")] = 50,
    module: Module = None,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The sagas of the running application, the newest first."""
    arguments = {"type": kind, "status": status, "key": key, "since": since, "limit": limit}
    answers = ask(connect.read_settings(app_folder, data), "list", module, **arguments)
    unique = {row["id"]: row for answer in answers for row in answer or ()}
    found = sorted(unique.values(), key=lambda row: row["id"], reverse=True)[:limit]
    if as_json:
        output.emit(found)
        return
    columns = {"id": "fixed", "saga": "fixed", "key": "fixed", "status": "fixed", "began": "fixed", "": "left"}
    rows = [
        [row["id"], f"{row['module']}.{row['type']}", row["key"] or "-", painted(row["status"]),
         time(row["started"]), plain(doing(row))]
        for row in found
    ]  # fmt: skip
    if rows:
        output.console().print(output.table(columns, rows))
    else:
        typer.echo("no such sagas")


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline sagas show 019ab2c3d4e5f60718293a4b5c6d
    seamline sagas show 019ab2c3d4e5f60718293a4b5c6d --json
    """,
)
def show(id_: Id, module: Module = None, app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """One saga: its journal with what went in and came out, what it waits for, its trace."""
    found = ask_one(connect.read_settings(app_folder, data), "show", id_, module)
    if as_json:
        output.emit(found)
        return
    head = {
        "saga": f"{found['module']}.{found['type']} version {found['version']}",
        "status": found["status"],
        "key": found["key"],
        "began": time(found["started"]),
        "ended": time(found["ended"]),
        "stuck": found["stuck"],
        "waits for": "; ".join(found["waiting"]),
        "trouble": "; ".join(found["trouble"]),
        "parent": found["parent"],
        "runs in": process(found["owner"]),
        "trace": found["trace"],
        "notes": json.dumps(found["notes"]) if found["notes"] else "",
        "input": json.dumps(found["input"]),
        "result": outcome(found["result"]) if found["result"] is not None else "",
    }
    for name, value in head.items():
        if value:
            typer.echo(f"{name:>10}  {value}")
    typer.echo("")
    print_journal(found["journal"])


def print_journal(journal: list[dict[str, Any]]) -> None:
    columns = {"place": "right", "what": "fixed", "outcome": "fixed", "tries": "right", "took": "right"}
    columns |= {"in": "left", "out": "left"}
    rows = [
        [
            each["place"] or "-",
            plain(each["name"] if each["kind"] == "step" else f"{each['kind']} {each['name']}"),
            painted(each["outcome"]),
            str(each.get("attempts", 1)),
            output.milliseconds(each["took_ms"]) if each.get("took_ms") else "-",
            plain(short(each.get("input"))),
            plain(short(told(each)) or each.get("error", "")),
        ]
        for each in journal
    ]
    output.console().print(output.table(columns, rows) if rows else "nothing is in its journal yet")


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline sagas retry 019ab2c3d4e5f60718293a4b5c6d
    seamline sagas retry 019ab2c3d4e5f60718293a4b5c6d --skip 2   # place 2 was undone by hand
    """,
)
def retry(
    id_: Id,
    skip: Annotated[
        str | None,
        typer.Option("--skip", metavar="PLACE", help="A compensation that somebody has done by hand; see `show`."),
    ] = None,
    module: Module = None,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Try a stuck saga again, now."""
    tell(connect.read_settings(app_folder, data), "retry", id_, module, "is tried again", as_json=as_json, skip=skip)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline sagas cancel 019ab2c3d4e5f60718293a4b5c6d --reason "the customer asked for it"
    """,
)
def cancel(
    id_: Id,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept.")] = "",
    module: Module = None,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Stop a saga at its next step, and undo what it has done."""
    done = "will stop and be undone, unless it is past its point of no return"
    tell(connect.read_settings(app_folder, data), "cancel", id_, module, done, as_json=as_json, reason=reason)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline sagas signal 019ab2c3d4e5f60718293a4b5c6d paid
    seamline sagas signal 019ab2c3d4e5f60718293a4b5c6d address '{"street": "Long Row 5"}'
    """,
)
def signal(
    id_: Id,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The signal's name.")],
    value: Annotated[str, typer.Argument(metavar="[VALUE]", help="JSON; null when absent.")] = "null",
    module: Module = None,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Send a saga a value that it waits for, or will wait for."""
    try:
        json.loads(value)
    except ValueError:
        raise ArgumentError(f"{value!r} is not JSON", "Put text in quotes of its own: '\"yes\"'") from None
    settings = connect.read_settings(app_folder, data)
    tell(settings, "signal", id_, module, f"was sent {name}", as_json=as_json, name=name, value=value)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline sagas approve 019ab2c3d4e5f60718293a4b5c6d fraud --by ada
    seamline sagas approve 019ab2c3d4e5f60718293a4b5c6d fraud --by ada --refuse --comment "stolen card"
    """,
)
def approve(
    id_: Id,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What is asked; see `show`.")],
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who says so; your login when absent.")] = "",
    comment: Annotated[str, typer.Option("--comment", metavar="TEXT", help="Kept with the answer.")] = "",
    refuse: Annotated[bool, typer.Option("--refuse", help="Say no.")] = False,
    module: Module = None,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Answer a saga that waits for a person."""
    given = {"name": name, "by": by or getpass.getuser(), "comment": comment, "approved": not refuse}
    settings = connect.read_settings(app_folder, data)
    tell(settings, "approve", id_, module, "was refused" if refuse else "was approved", as_json=as_json, **given)


def tell(
    settings: Settings, operation: str, id_: str, module: str | None, done: str, *, as_json: bool, **arguments: Any
) -> None:
    found = ask_one(settings, operation, id_, module, **arguments)
    if as_json:
        output.emit(found)
    else:
        typer.echo(f"{id_} {done}.")
        if found.get("awaited") is False:
            name = arguments["name"]
            typer.echo(f"It does not wait for {name!r} now; this is kept in case it will. `seamline sagas show` tells.")


def ask(settings: Settings, operation: str, module: str | None, **arguments: Any) -> list[Any]:
    answer = connect.ask(settings, "sagas", module=module, operation=operation, arguments=arguments)
    return [each["result"] for each in answer["answers"]]


def ask_one(settings: Settings, operation: str, id_: str, module: str | None, **arguments: Any) -> dict[str, Any]:
    """The answer of the workload whose saga it is."""
    for found in ask(settings, operation, module, id=id_, **arguments):
        if found is not None:
            return found
    raise ArgumentError(f"there is no saga {id_!r}", "`seamline sagas list` shows what there is")


def doing(row: dict[str, Any]) -> str:
    return row["stuck"] or "; ".join(row["trouble"]) or "; ".join(row["waiting"])


def outcome(result: dict[str, Any]) -> str:
    error, output = result.get("error"), told(result)
    if error and isinstance(output, str):
        return f"{error}: {output}"
    return f"{error} {json.dumps(output)}" if error else json.dumps(output)


def told(entry: dict[str, Any]) -> Any:
    """What came out; of an error, which is kept with its remedy and more, the sentence."""
    match entry:
        case {"outcome": "error" | "unknown", "output": [str() as fact, *_]}:
            return fact
        case _:
            return entry.get("output")


def process(owner: str) -> str:
    """A process's name is made so that no other ever has it; people want to know which it is."""
    found = re.fullmatch(r"(.+)@(.+?)/.*:(\d+):\d+#\w+", owner)
    return f"{found[1]}, pid {found[3]} on {found[2]}" if found else owner


def painted(status: str) -> str:
    colour = {"stuck": "bold red", "failed": "red", "damaged": "bold red", "unknown": "red", "undoing": "yellow"}
    return f"[{colour[status]}]{status}[/]" if status in colour else status


def plain(text: str) -> str:
    return text.replace("[", "\\[")


def short(value: Any, characters_max: int = 80) -> str:
    if value is None:
        return ""
    text = json.dumps(value)
    return text if len(text) <= characters_max else f"{text[:characters_max]}…"


def time(text: str | None) -> str:
    return f"{text[:19].replace('T', ' ')} UTC" if text else ""
