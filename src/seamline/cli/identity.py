"""``seamline identity``: who has certificates, and what is no longer good."""

from __future__ import annotations

import getpass
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
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
    help="""Who has certificates, and what is no longer good.

    What is revoked is void everywhere within a moment: requests, streams and WebSockets under way end, and what comes
    next is refused. It stays so when the application is restarted.
    """,
    epilog="""
    seamline identity list
    seamline identity quarantine payments --reason "strange calls"
    seamline identity release payments
    seamline identity revoke --user ada --reason "left"
    seamline identity issue-client urn:acme:billing --valid 30d
    """,
)

Module = Annotated[str, typer.Argument(metavar="MODULE", help="A module of the application.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for those who are refused and for the audit.")]
_CLIENT = re.compile(r"[a-z][a-z0-9+.-]*:[!-~]{1,180}|[!-?A-~]{1,60}@[!-?A-~]{1,120}", re.ASCII)
_DAYS = re.compile(r"(\d{1,4})d")


@app.command("list", cls=ManualCommand, epilog="seamline identity list --json   # for a script")
def list_all(app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """Modules with their certificates, and what was revoked and is not over."""
    found = connect.ask(connect.read_settings(app_folder, data), "identity")
    if as_json:
        output.emit(found)
        return
    rows = [
        [each["name"], str(each["certificates"]), _date(each["ends"]), each["quarantined"] or "good"]
        for each in found["modules"]
    ]
    columns = ("module", "certificates", "last ends", "state")
    output.console().print(output.table(dict.fromkeys(columns, "left"), rows))
    if found["revocations"]:
        revoked = [
            [each["kind"], each["id"], each["reason"], _date(each["until"] // 1000)] for each in found["revocations"]
        ]
        columns = ("revoked", "id", "reason", "until")
        output.console().print(output.table(dict.fromkeys(columns, "left"), revoked))


@app.command(cls=ManualCommand, epilog='seamline identity quarantine payments --reason "strange calls"')
def quarantine(
    module: Module, reason: Reason = "", app_folder: App = None, data: Data = None, as_json: Json = False
) -> None:
    """Set a module apart: it calls nobody, nobody calls it, it gets no certificate and no secret."""
    entry = {"kind": "module", "id": module, "reason": reason or "quarantined"}
    _revoke(connect.read_settings(app_folder, data), [entry], f"Module {module} is quarantined", as_json=as_json)


@app.command(cls=ManualCommand, epilog="seamline identity release payments")
def release(module: Module, app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """End a module's quarantine."""
    entry = {"kind": "module", "id": module, "lifted": True}
    _revoke(connect.read_settings(app_folder, data), [entry], f"Module {module} is released", as_json=as_json)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline identity revoke --user ada                # who signs in again is let in
    seamline identity revoke --session k3x... --reason stolen
    seamline identity revoke --client nightly-export   # an API key's id, an OAuth client, a certificate's name
    seamline identity revoke --client nightly-export --lift
    """,
)
def revoke(
    session: Annotated[list[str] | None, typer.Option("--session", help="A session; may be repeated.")] = None,
    user: Annotated[list[str] | None, typer.Option("--user", help="A user: all that they signed in to so far.")] = None,
    client: Annotated[list[str] | None, typer.Option("--client", help="A program, until it is lifted.")] = None,
    device: Annotated[list[str] | None, typer.Option("--device", help="A device: all sign-ins on it so far.")] = None,
    reason: Reason = "",
    lift: Annotated[bool, typer.Option("--lift", help="It is good again.")] = False,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Have sessions, users, programs or devices refused from now on, also in what is under way."""
    named = {"session": session, "user": user, "client": client, "device": device}
    entries = [
        {"kind": kind, "id": each, "reason": reason or "revoked", "lifted": lift}
        for kind, every in named.items()
        for each in every or ()
    ]
    if not entries:
        raise ArgumentError("nothing is named", "Say --session, --user, --client or --device.")
    what = ", ".join(f"{each['kind']} {each['id']}" for each in entries)
    done = f"{what}: {'good again' if lift else 'revoked'}"
    _revoke(connect.read_settings(app_folder, data), entries, done, as_json=as_json)


@app.command("issue-client", cls=ManualCommand, epilog="seamline identity issue-client urn:acme:billing --valid 30d")
def issue_client(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A URI or an e-mail address: what it is known by.")],
    valid: Annotated[str, typer.Option("--valid", help="For how long, in days: 30d.")] = "30d",
    into: Annotated[Path, typer.Option("--into", metavar="DIR", help="Where to write key and certificate.")] = Path(),
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a key and a certificate with which a program proves who it is at the public port."""
    from seamline.gateway.auth.client_authority import ClientAuthority
    from seamline.gateway.auth.sealing import replace_file
    from seamline.kernel.clock import SystemClock

    days = _DAYS.fullmatch(valid)
    if days is None or not 0 < int(days[1]) <= 400:
        raise ArgumentError(f"{valid!r} is not a time", "Write days, from 1d to 400d.")
    if not _CLIENT.fullmatch(name):
        raise ArgumentError(
            f"{name!r} is not a name for a client", "Write a URI, urn:acme:billing, or an e-mail address."
        )
    settings = connect.read_settings(app_folder, data)
    authority = ClientAuthority(
        settings.prepare_data_folder() / "identity" / "clients", settings.app.name, SystemClock()
    )
    key, chain = authority.issue(name, timedelta(days=int(days[1])))
    file = into / re.sub(r"[^A-Za-z0-9.-]+", "-", name)
    files = {"key": f"{file}.key", "certificate": f"{file}.pem", "client_ca": str(authority.certificate)}
    replace_file(Path(files["key"]), key)
    replace_file(Path(files["certificate"]), chain)
    if as_json:
        output.emit({"name": name, **files})
        return
    typer.echo(f"{files['key']} and {files['certificate']} are written.")
    if not settings.auth.client_ca:
        typer.echo(f'The gateway takes it with client_ca = "{authority.certificate}" under [auth].', err=True)


@app.command(cls=ManualCommand, epilog="seamline identity rotate")
def rotate(app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """Give the application a new root; the old one is trusted until its last certificate has ended."""
    found = connect.ask(connect.read_settings(app_folder, data), "rotate")
    if as_json:
        output.emit(found)
    else:
        typer.echo(f"A new root signs from now on; {found['workers']} processes trust it.")


def _revoke(settings: Settings, entries: list[dict[str, Any]], done: str, *, as_json: bool) -> None:
    from seamline.run.errors import NotRunningError

    try:
        found = connect.ask(settings, "revoke", entries=entries, by=getpass.getuser())
    except NotRunningError:
        found = {"workers": _write_down(settings, entries)}
    if as_json:
        output.emit({"entries": entries, **found})
    else:
        number = found["workers"]
        heard = f"{number} process has heard" if number == 1 else f"{number} processes have heard"
        heard = heard if number else "from the next start on"
        typer.echo(f"{done}: {heard}.")


def _write_down(settings: Settings, entries: list[dict[str, Any]]) -> int:
    """Nothing runs: what starts next finds it."""
    from seamline.kernel.clock import SystemClock
    from seamline.run.lock import DataLock
    from seamline.run.revocations import RevocationBook, checked

    data = settings.prepare_data_folder()
    with DataLock(data):
        RevocationBook(data / "identity", SystemClock()).add([checked(each, settings.modules) for each in entries])
    return 0


def _date(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M") if moment else "never"
