"""``seamline users``: those of the development identity provider."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seamline.cli import connect, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand, ManualGroup
from seamline.cli.options import App, Json

if TYPE_CHECKING:
    from seamline.gateway.auth.development.users import UsersFile

app = typer.Typer(
    add_completion=False,
    cls=ManualGroup,
    help="""Users of the development identity provider, in the file that `development = ...` under [auth] names.

    The file holds hashes of passwords, and is read again when it changes.
    """,
    epilog="""
    seamline users add ada --role support --name "Ada Example"   # asks for a password
    seamline users list
    seamline users remove ada
    """,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="What they sign in as.")]


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline users add ada --role support                 # asks for the password
    echo secret | seamline users add ci --password-stdin  # for a script
    """,
)
def add(
    name: Name,
    role: Annotated[list[str] | None, typer.Option("--role", help="A role; may be repeated.")] = None,
    full_name: Annotated[str, typer.Option("--name", help="How they are called.")] = "",
    email: Annotated[str, typer.Option("--email", help="Their address.")] = "",
    tenant: Annotated[str, typer.Option("--tenant", help="Their tenant.")] = "",
    disabled: Annotated[bool, typer.Option("--disabled", help="They may not sign in.")] = False,
    from_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from the input.")] = False,
    app_folder: App = None,
) -> None:
    """Add a user, or replace the one of that name."""
    from seamline.gateway.auth.development.users import DevelopmentUser, check_name, hashed

    file = _file(app_folder)
    check_name(name)
    password = sys.stdin.readline().rstrip("\n") if from_stdin else _asked(name)
    user = DevelopmentUser(name, hashed(password), full_name, email, tuple(role or ()), tenant, disabled)
    file.put(user)
    typer.echo(f"{name} may {'not ' if disabled else ''}sign in. The file is {file.path}.")


@app.command("list", cls=ManualCommand, epilog="seamline users list --json   # for a script")
def list_all(app_folder: App = None, as_json: Json = False) -> None:
    """All users, without their passwords."""
    users = _file(app_folder).all().values()
    if as_json:
        output.emit([{**dataclasses.asdict(user), "password": None} for user in users])
        return
    rows = [
        [user.id, user.name, user.email, ", ".join(user.roles), user.tenant, "disabled" if user.disabled else ""]
        for user in users
    ]
    columns = ("user", "name", "email", "roles", "tenant", "")
    output.console().print(output.table(dict.fromkeys(columns, "left"), rows))


@app.command(cls=ManualCommand, epilog="seamline users remove ada")
def remove(name: Name, app_folder: App = None) -> None:
    """Take a user out; a session ends at its next recheck."""
    _file(app_folder).remove(name)
    typer.echo(f"{name} is removed.")


def _file(app_folder: Path | None) -> UsersFile:
    from seamline.gateway.auth.development.users import UsersFile

    settings = connect.read_settings(app_folder)
    if not settings.auth.development:
        raise ArgumentError(
            "this application has no development identity provider", 'Say development = "users.toml" under [auth]'
        )
    return UsersFile(settings.folder / settings.auth.development)


def _asked(name: str) -> str:
    return str(typer.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True, type=str))
