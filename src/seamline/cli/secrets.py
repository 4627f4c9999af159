"""``seamline secrets``: set, read, rotate and list what the application keeps secret."""

from __future__ import annotations

import base64
import json
import os
import pwd
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import connect, manual, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand, ManualGroup
from seamline.cli.options import App, Data, Json

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings

app = typer.Typer(
    add_completion=False,
    cls=ManualGroup,
    help="""What the application keeps secret. Values come from stdin or a prompt, never from an argument.

    A module reads a secret if policy permits it `Action::"secret"` on `Secret::"name"`. Whatever is read, written or
    refused is a line of the audit.
    """,
    epilog="""
    seamline secrets set stripe-key                    # asks for the value, or reads it from a pipe
    seamline secrets list                              # names, versions, ages, who may read; no values
    seamline secrets rotate stripe-key                 # by the function of the module that knows how
    seamline secrets rotate --master                   # seal everything with a new master key
    """,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The secret's name.")]


@app.command(
    "set",
    cls=ManualCommand,
    epilog="""
    seamline secrets set stripe-key < stripe.txt
    openssl rand -base64 32 | seamline secrets set session-key
    """,
)
def put(
    name: Name,
    overlap_s: Annotated[
        float | None, typer.Option("--overlap", metavar="SECONDS", help="How long the value before it stays valid.")
    ] = None,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Give a secret its first or next value, from stdin or a prompt. One line end at the end is not part of it."""
    value = base64.b64encode(read_value(name)).decode()
    settings = connect.read_settings(app_folder, data)
    done = ask(settings, "set", name=name, value=value, overlap_s=overlap_s)
    tell(done, f"The secret {name} is at version {done['version']}.", as_json=as_json)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline secrets get stripe-key            # its versions, without values
    seamline secrets get stripe-key --reveal   # the value, to stdout; the audit has it
    """,
)
def get(
    name: Name,
    reveal: Annotated[bool, typer.Option("--reveal", help="Print the value.")] = False,
    version: Annotated[str, typer.Option("--version", metavar="VERSION", help="Not the newest but this.")] = "",
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """A secret's versions; with --reveal its value."""
    settings = connect.read_settings(app_folder, data)
    if not reveal:
        found = [each for each in ask(settings, "list")["secrets"] if each["name"] == name]
        if not found:
            raise unknown(name)
        if as_json:
            output.emit(found[0])
        else:
            print_versions(found[0])
        return
    shown = ask(settings, "get", name=name, version=version)
    value = base64.b64decode(shown["value"])
    if as_json:
        output.emit({**shown, "value": value.decode(errors="backslashreplace")})
        return
    sys.stdout.buffer.write(value)
    sys.stdout.flush()
    if sys.stdout.isatty():
        typer.echo()


@app.command(
    "list",
    cls=ManualCommand,
    epilog="""
    seamline secrets list
    seamline secrets list --json  # for a script
    """,
)
def list_all(app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """Every secret: its version, its age, who may read it. No values."""
    settings = connect.read_settings(app_folder, data)
    found = ask(settings, "list")
    if as_json:
        output.emit(found)
        return
    rows = [row_of(each) for each in found["secrets"]]
    if not rows:
        typer.echo("There are no secrets. Set one: `seamline secrets set NAME`.")
        return
    columns = {"secret": "fixed", "version": "right", "age": "right", "leases": "right", "rotated by": "left"}
    output.console().print(output.table({**columns, "may be read by": "left"}, rows))
    if key_lies_beside(settings):
        typer.echo(
            "\nThe master key lies in the data folder, beside what it seals: whoever copies the folder has both. "
            "Name another place with master_file under [secrets]."
        )


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline secrets rotate stripe-key  # the application must run
    seamline secrets rotate --master    # all data keys are wrapped anew; nothing stops meanwhile
    """,
)
def rotate(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The secret's name.")] = "",
    master: Annotated[bool, typer.Option("--master", help="The master key, instead of a secret.")] = False,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Have the module that knows how make a secret's next value, or replace the master key."""
    if bool(name) == master:
        raise ArgumentError("there is nothing to rotate, or too much", "Name a secret, or write --master.")
    settings = connect.read_settings(app_folder, data)
    if master:
        done = ask(settings, "rotate-master")
        tell(done, f"Values sealed with a new master key: {done['rewrapped']}.", as_json=as_json)
        return
    done = connect.ask(settings, "secrets", operation="rotate", who=who(), arguments={"name": name})["result"]
    tell(done, f"The secret {name} is at version {done['version']}.", as_json=as_json)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline secrets delete old-key
    """,
)
def delete(name: Name, app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """Destroy all versions of a secret. That it was there stays known."""
    ask(connect.read_settings(app_folder, data), "delete", name=name)
    tell({"deleted": name}, f"The secret {name} is destroyed.", as_json=as_json)


@app.command(
    "import",
    cls=ManualCommand,
    epilog="""
    seamline secrets import < .env               # NAME=value lines; names become small, _ becomes -
    vault kv get -format=json ... | jq .data.data | seamline secrets import
    """,
)
def import_all(
    prefix: Annotated[str, typer.Option("--prefix", metavar="TEXT", help="What stands before every name.")] = "",
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Set many secrets: a JSON object of texts, or lines NAME=value as in a .env file, from stdin."""
    from seamline.secrets.interface import check_name

    if sys.stdin.isatty():
        raise ArgumentError("there is nothing on stdin", "Write: seamline secrets import < .env")
    values = {check_name(prefix + name): value for name, value in parse_many(sys.stdin.read()).items()}
    settings = connect.read_settings(app_folder, data)
    for name, value in values.items():
        ask(settings, "set", name=name, value=base64.b64encode(value.encode()).decode())
    tell({"set": sorted(values)}, f"{len(values)} secrets are set: {', '.join(sorted(values))}.", as_json=as_json)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline secrets audit             # the last lines about secrets
    seamline secrets audit stripe-key --lines 200
    """,
)
def audit(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Only of this secret.")] = "",
    lines: Annotated[int, typer.Option("--lines", metavar="N", help="How many.")] = 20,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Who read, set, rotated or was refused which secret, and when."""
    from seamline.run.keeping import AUDIT_FILE

    path = connect.read_settings(app_folder, data).data_folder / AUDIT_FILE
    written = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [json.loads(line) for line in written]
    shown = [each for each in found if not name or each.get("resource") == f'Secret::"{name}"'][-lines:]
    if as_json:
        output.emit(shown)
        return
    if not shown:
        typer.echo("Nobody has asked for it yet." if name else "Nobody has asked for a secret yet.")
        return
    columns = {
        "time": "time", "decision": "decision", "principal": "who", "action": "what", "resource": "which",
        "version": "version", "reason": "because",
    }  # fmt: skip
    rows = [tuple(str(each.get(key, "")) for key in columns) for each in shown]
    output.console().print(output.table(dict.fromkeys(columns.values(), "left"), rows))


def ask(settings: Settings, operation: str, **arguments: Any) -> Any:
    """Ask the running application, or open the store where nothing runs."""
    import asyncio

    from seamline.run.errors import NotRunningError

    try:
        return connect.ask(settings, "secrets", operation=operation, who=who(), arguments=arguments)["result"]
    except NotRunningError:
        return asyncio.run(ask_here(settings, operation, arguments))


async def ask_here(settings: Settings, operation: str, arguments: Mapping[str, Any]) -> Any:
    from seamline.kernel.clock import SystemClock
    from seamline.mesh.policy import SecretRules
    from seamline.mesh.policy.sources import policy_source
    from seamline.run.keeping import ask_keeper, secrets_audit
    from seamline.secrets.opening import open_keeper
    from seamline.secrets.process import protect_memory

    protect_memory()
    data = settings.prepare_data_folder()
    rules = SecretRules(policy_source(settings), settings.modules)
    trail = secrets_audit(data)
    keeper = open_keeper(settings, data, rules.denial, partial(trail.write, "secret"), SystemClock())
    try:
        return await ask_keeper(keeper, rules, operation, who(), arguments)
    finally:
        await keeper.close()
        trail.close()


def who() -> str:
    """The person at the command line, for the audit."""
    number = os.getuid()
    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"


def read_value(name: str) -> bytes:
    """The value on stdin, or what is typed twice, unseen."""
    if sys.stdin.isatty():
        typed: str = typer.prompt(f"Value of {name}", hide_input=True, confirmation_prompt=True)
        return typed.encode()
    value = sys.stdin.buffer.read()
    return value.removesuffix(b"\n").removesuffix(b"\r")


def parse_many(text: str) -> dict[str, str]:
    """A JSON object of texts, or ``NAME=value`` lines. Raises ArgumentError, which holds no value."""
    if text.lstrip().startswith("{"):
        try:
            found: Any = json.loads(text)
        except ValueError:
            raise ArgumentError("what begins with { is not JSON", "Correct it, or write NAME=value lines.") from None
        wrong = [name for name, value in found.items() if not isinstance(value, str)]
        if wrong:
            raise ArgumentError(f"{wrong[0]!r} is not a text", "Write each value as a JSON string.")
        return found
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip().removeprefix("export ").strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        if not equals:
            raise ArgumentError(f"line {number} is not NAME=value", "Write one secret on each line.")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        values[name.strip().lower().replace("_", "-")] = value
    return values


def row_of(secret: Mapping[str, Any]) -> tuple[str, ...]:
    newest = secret["versions"][0]
    rotation = secret["rotation"]
    often = f"every {output.lasted(rotation['every_s'])}" if rotation and rotation["every_s"] else "when asked"
    by = f"{rotation['module']}, {often}" if rotation else ""
    version = "destroyed" if newest["gone"] else str(newest["version"])
    return (
        secret["name"], version, age(newest["made_ms"]), str(len(secret["leases"]) or ""), by,
        ", ".join(secret["readers"]) or "nobody",
    )  # fmt: skip


def print_versions(secret: Mapping[str, Any]) -> None:
    typer.echo(f"{manual.strong(secret['name'])}: may be read by {', '.join(secret['readers']) or 'nobody'}\n")
    rows = [(str(each["version"]), age(each["made_ms"]), state(each), each["by"]) for each in secret["versions"]]
    output.console().print(
        output.table({"version": "right", "age": "right", "state": "left", "written by": "left"}, rows)
    )
    typer.echo("\nThe value is shown with --reveal.")


def state(version: Mapping[str, Any]) -> str:
    if version["gone"]:
        return "destroyed"
    if not version["until_ms"]:
        return "newest"
    return f"valid for {output.lasted(max(version['until_ms'] / 1000 - time.time(), 0))} more"


def age(made_ms: int) -> str:
    return output.lasted(max(time.time() - made_ms / 1000, 0)) if made_ms else "-"


def unknown(name: str) -> Exception:
    from seamline.secrets.errors import UnknownSecretError

    return UnknownSecretError(f"there is no secret {name!r}", "`seamline secrets list` tells.")


def tell(done: Any, sentence: str, *, as_json: bool) -> None:
    if as_json:
        output.emit(done)
    else:
        typer.echo(sentence)


def key_lies_beside(settings: Settings) -> bool:
    from seamline.secrets.opening import master_file

    own = settings.secrets
    if own.backend != "file" or own.master != "file":
        return False
    return master_file(settings, settings.data_folder).resolve().is_relative_to(Path(settings.data_folder).resolve())
