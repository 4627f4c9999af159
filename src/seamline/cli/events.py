"""``seamline events``: what was published, how far its consumers are, and what they could not handle."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import connect, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand, ManualGroup
from seamline.cli.options import App, Data, Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seamline.kernel.settings import Settings

app = typer.Typer(
    add_completion=False,
    cls=ManualGroup,
    help="""What modules published, how far its consumers are, and what they could not handle.

    A module's events are its topic. A consumer group is a handler, `<module>.<handler>`. All of it is asked of the
    running application.
    """,
    epilog="""
    seamline events lag                 # how far each group is behind
    seamline events tail orders         # the last events of a module
    seamline events dead list           # what could not be handled, and why
    """,
)
dead = typer.Typer(
    add_completion=False,
    cls=ManualGroup,
    help="Events that a handler failed on so often that they were put aside.",
    epilog="""
    seamline events dead list
    seamline events dead retry billing 12
    seamline events dead drop billing --group on_order
    """,
)
app.add_typer(dead, name="dead")

FOLLOW_S = 0.5
OFFSET_MAX = 2**63 - 1
"""What a database's integer holds."""

Module = Annotated[str, typer.Argument(metavar="MODULE", help="The module.")]
Perhaps = Annotated[str | None, typer.Argument(metavar="[MODULE]", help="One module; all when absent.")]
Number = Annotated[int | None, typer.Argument(metavar="[NUMBER]", help="Of the dead letter; see `dead list`.")]
Group = Annotated[str | None, typer.Option("--group", metavar="GROUP", help="All of one consumer group.")]
All = Annotated[bool, typer.Option("--all", help="All of the module.")]


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline events topics
    seamline events topics --json
    """,
)
def topics(module: Perhaps = None, app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """The modules that publish: their events, what their logs hold, and when an event is safe.

    Offsets count the events of a log; `first` is the oldest that is kept. `delayed` are not due yet.
    """
    found = ask(connect.read_settings(app_folder, data), "topics", module)
    if as_json:
        output.emit(found)
        return
    columns = {"module": "fixed", "events": "left", "first": "right", "last": "right", "delayed": "right"}
    rows = [
        [each["module"], ", ".join(each["events"]), *kept(each["first"], each["last"]), f"{each['delayed']:,}"]
        for each in found
    ]
    show(columns, rows, "no module declares events")
    for transport, safe in dict.fromkeys((each["transport"], each["durable_when"]) for each in found):
        typer.echo(f"\n{transport}, when an event is acknowledged: {safe}.")


def kept(first: int, last: int) -> tuple[str, str]:
    """The offsets of the oldest and the newest event in a log; dashes where it keeps none."""
    return (f"{first:,}", f"{last:,}") if first <= last else ("-", "-")


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline events lag            # every consumer group
    seamline events lag billing    # those of one module
    """,
)
def lag(module: Perhaps = None, app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """How many events each consumer group has not handled yet, and how old the oldest of them is.

    `resting` are held back behind one that failed, `failed` counts the failed attempts of the process that answers,
    `dead` the dead letters.
    """
    found = ask(connect.read_settings(app_folder, data), "lag", module)
    if as_json:
        output.emit(found)
        return
    columns = {"group": "fixed", "topic": "fixed", "behind": "right", "oldest": "right", "failed": "right"}
    columns |= {"resting": "right", "dead": "right"}
    rows = [
        [
            each["group"], each["topic"], *behind(each), f"{each['failed']:,}", f"{each['resting']:,}",
            f"[bold red]{each['dead']:,}[/]" if each["dead"] else "0",
        ]
        for each in found
    ]  # fmt: skip
    show(columns, rows, f"module {module!r} handles no events" if module else "nothing handles events")


def behind(group: dict[str, Any]) -> tuple[str, str]:
    if group["events"] is None:
        return "?", "?"
    return f"{group['events']:,}", output.lasted(group["oldest_s"]) if group["events"] else "-"


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline events tail orders                           # the last ten
    seamline events tail orders --type OrderPlaced -n 50
    seamline events tail orders --follow --json           # one object a line, for ever
    """,
)
def tail(
    module: Module,
    count: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=1, max=1000, help="How many, up to 1,000.")
    ] = 10,
    types: Annotated[list[str] | None, typer.Option("--type", metavar="EVENT", help="Only this; repeatable.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The last events of a module, as they are stored."""
    settings = connect.read_settings(app_folder, data)
    page = ask_one(settings, "tail", module, limit=count, types=types)
    if as_json and not follow:
        output.emit(page["records"])
        return
    print_records(page["records"], as_json=as_json)
    if not page["records"] and not follow:
        typer.echo("no events")
    if follow:
        asyncio.run(go_on(settings, module, page["through"], types, as_json=as_json))


async def go_on(settings: Settings, module: str, after: int, types: list[str] | None, *, as_json: bool) -> None:
    while True:
        await asyncio.sleep(FOLLOW_S)
        arguments = {"after": after, "limit": 1000, "types": types}
        answer = await connect.ask_async(settings, "events", module=module, operation="tail", arguments=arguments)
        page = answer["answers"][0]["result"]
        after = page["through"]
        print_records(page["records"], as_json=as_json)


def print_records(records: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    for each in records:
        if as_json:
            print(json.dumps(each), flush=True)
        else:
            print(
                f"{each['offset']:>8}  {each['time']}  {each['type']}  {each['key'] or '-'}  {each['data']}", flush=True
            )


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline events verify          # every log
    seamline events verify orders
    """,
)
def verify(module: Perhaps = None, app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """Read every record, and check that it is as it was written. The exit status is 1 if one is not."""
    found = ask(connect.read_settings(app_folder, data), "verify", module)
    print_damage(found, "every record is as it was written", as_json=as_json)
    if any(each["damage"] for each in found):
        raise typer.Exit(output.STATUS_FOUND_WANTING)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline events repair orders
    """,
)
def repair(module: Module, app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """Set aside what is damaged in a module's log, so that readers go on, and say what it was."""
    found = ask(connect.read_settings(app_folder, data), "repair", module)
    print_damage(found, "nothing was damaged", as_json=as_json)


def print_damage(found: list[dict[str, Any]], otherwise: str, *, as_json: bool) -> None:
    if as_json:
        output.emit(found)
        return
    rows = [
        [each["module"], f"{one['first']}-{one['last']}" if one["last"] else "-", one["fact"].replace("[", "\\[")]
        for each in found
        for one in each["damage"]
    ]
    show({"module": "fixed", "offsets": "right", "what was found": "left"}, rows, otherwise)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline events replay billing on_order --from earliest
    seamline events replay billing on_order --from 1200
    seamline events replay billing on_order --from 2026-03-01T00:00:00Z
    """,
)
def replay(
    module: Module,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="The handler's name, or its group= if it has one.")],
    start: Annotated[str, typer.Option("--from", metavar="WHERE", help="earliest, latest, an offset, or a time.")],
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Hand a consumer group its events again. Their effects happen again: the handler must allow for that."""
    if not is_place(start):
        raise ArgumentError(
            f"{start!r} is no place in a log",
            "Write earliest, latest, an offset, or a time such as 2026-03-01T00:00:00Z",
        )
    found = ask(connect.read_settings(app_folder, data), "replay", module, group=group, start=start)
    if as_json:
        output.emit(found)
        return
    for each in found:
        typer.echo(f"{each['group']} begins again with the events of {each['topic']} from {each['start']}.")


def is_place(start: str) -> bool:
    if start in {"earliest", "latest"}:
        return True
    if start.isdecimal():
        return int(start) <= OFFSET_MAX
    try:
        datetime.fromisoformat(start)
    except ValueError:
        return False
    return True


@dead.command(
    "list",
    cls=ManualCommand,
    epilog="""
    seamline events dead list
    seamline events dead list billing --group on_order
    """,
)
def list_dead(
    module: Perhaps = None,
    group: Group = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=10_000, help="How many of each module.")
    ] = 100,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """What could not be handled, the oldest first, and why."""
    found = ask(connect.read_settings(app_folder, data), "dead list", module, group=group, limit=limit)
    if as_json:
        output.emit(found)
        return
    columns = {"module": "fixed", "number": "right", "group": "fixed", "event": "fixed", "key": "fixed"}
    columns |= {"attempts": "right", "last (UTC)": "fixed", "reason": "left"}
    rows = [
        [
            each["module"], str(each["number"]), each["group"], f"{each['topic']}.{each['type']}", each["key"] or "-",
            str(each["attempts"]), clock(each["last_ms"]), each["reason"].replace("[", "\\["),
        ]
        for each in found
    ]  # fmt: skip
    show(columns, rows, "no dead letters")


def clock(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


@dead.command(
    "show",
    cls=ManualCommand,
    epilog="""
    seamline events dead show billing 12
    """,
)
def show_dead(
    module: Module,
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="Of the dead letter; see `dead list`.")],
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """One dead letter: why, where in the code, how often, and the event as it is stored."""
    found = ask_one(connect.read_settings(app_folder, data), "dead show", module, number=number)
    if as_json:
        output.emit(found)
        return
    record = found.pop("record")
    found |= {"first": clock(found.pop("first_ms")), "last": clock(found.pop("last_ms"))}
    for name in ("time", "due", "expires"):
        at_ms = record.pop(f"{name}_ms")
        record[name] = clock(at_ms) if at_ms else ""
    for name, value in (found | {f"event {name}": value for name, value in record.items() if value}).items():
        typer.echo(f"{name:>16}  {value}")


@dead.command(
    cls=ManualCommand,
    epilog="""
    seamline events dead retry billing 12                # one
    seamline events dead retry billing --group on_order  # all of a group
    seamline events dead retry billing --all
    """,
)
def retry(
    module: Module, number: Number = None, group: Group = None, every: All = False,
    app_folder: App = None, data: Data = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Handle it again, once, now. What fails again stays. The exit status is 1 if any did."""
    chosen(number, group, every=every)
    report("dead retry", module, number, group, connect.read_settings(app_folder, data), as_json=as_json)


@dead.command(
    cls=ManualCommand,
    epilog="""
    seamline events dead drop billing 12
    seamline events dead drop billing --group on_order
    """,
)
def drop(
    module: Module, number: Number = None, group: Group = None, every: All = False,
    app_folder: App = None, data: Data = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Forget it for good."""
    chosen(number, group, every=every)
    report("dead drop", module, number, group, connect.read_settings(app_folder, data), as_json=as_json)


def chosen(number: int | None, group: str | None, *, every: bool) -> None:
    if (number is not None) + (group is not None) + every != 1:
        raise ArgumentError("it is not clear which dead letters are meant", "Give one of NUMBER, --group and --all")


def report(
    operation: str, module: str, number: int | None, group: str | None, settings: Settings, *, as_json: bool
) -> None:
    found = ask(settings, operation, module, number=number, group=group)
    if as_json:
        output.emit(found)
    else:
        show(
            {"number": "right", "outcome": "fixed", "reason": "left"},
            [[str(e["number"]), "done" if e["done"] else "not done", e["reason"].replace("[", "\\[")] for e in found],
            "no dead letters",
        )
    if not all(each["done"] for each in found):
        raise typer.Exit(output.STATUS_FOUND_WANTING)


def ask(settings: Settings, operation: str, module: str | None, **arguments: Any) -> list[Any]:
    """The rows that all workloads answer with, each once: while a topology changes, two may host a module."""
    answer = connect.ask(settings, "events", module=module, operation=operation, arguments=arguments)
    rows = [row for each in answer["answers"] for row in each["result"] or ()]
    unique: dict[str, Any] = {}
    for row in rows:
        named = [row.get(name) for name in ("module", "group", "topic", "number")]
        unique.setdefault(json.dumps(named), row)
    return list(unique.values())


def ask_one(settings: Settings, operation: str, module: str, **arguments: Any) -> Any:
    """The answer of a workload that hosts the module."""
    answer = connect.ask(settings, "events", module=module, operation=operation, arguments=arguments)
    found = answer["answers"][0]["result"]
    if found is None:
        raise ArgumentError(
            f"module {module!r} neither publishes nor handles events", "`seamline events topics` lists who publishes"
        )
    return found


def show(columns: dict[str, str], rows: list[list[str]], otherwise: str) -> None:
    if rows:
        output.console().print(output.table(columns, rows))
    else:
        typer.echo(otherwise)
