"""``seamline keys``: API keys of programs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from seamline.cli import connect, output
from seamline.cli.manual import ManualCommand, ManualGroup
from seamline.cli.options import App, Data, Json
from seamline.cli.times import valid_seconds

if TYPE_CHECKING:
    from seamline.gateway.auth.api_keys import ApiKey, ApiKeys
    from seamline.kernel.settings import Settings

T = TypeVar("T")

app = typer.Typer(
    add_completion=False,
    cls=ManualGroup,
    help="""API keys of programs. A key is shown once, when it is made; only a hash is kept.

    A program sends it as `Authorization: Bearer slk_...` or `X-API-Key: slk_...`. Gateways take keys where
    seamline.toml says `api_keys = true` under [auth]; a change reaches them within a second.
    """,
    epilog="""
    seamline keys create "nightly export" --role reader --scope read --valid 90d
    seamline keys list
    seamline keys rotate k3x9...  --overlap 1d   # both secrets hold for a day
    seamline keys revoke k3x9...                 # at once
    """,
)

Id = Annotated[str, typer.Argument(metavar="ID", help="As `seamline keys list` has it.")]


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline keys create "nightly export" --role reader --valid 90d
    seamline keys create ci --scope deploy --valid 1h --json
    """,
)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for, for people.")],
    role: Annotated[list[str] | None, typer.Option("--role", help="A role; may be repeated.")] = None,
    scope: Annotated[list[str] | None, typer.Option("--scope", help="Limit it to this; may be repeated.")] = None,
    tenant: Annotated[str, typer.Option("--tenant", help="The tenant it acts for.")] = "",
    user: Annotated[str, typer.Option("--user", help="The user it acts as; by default one of its own.")] = "",
    valid: Annotated[str, typer.Option("--valid", help="For how long: 90d, 12h; 0 is for ever.")] = "90d",
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a key and show it, this once."""
    valid_s = valid_seconds(valid)
    settings = connect.read_settings(app_folder, data)
    key, text = _with(
        settings,
        lambda keys: keys.create(name, user=user, roles=role or (), scopes=scope, tenant=tenant, valid_s=valid_s),
    )
    _show_new(key, text, settings, as_json=as_json)


@app.command("list", cls=ManualCommand, epilog="seamline keys list --json   # for a script")
def list_all(app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """All keys, without their secrets."""
    settings = connect.read_settings(app_folder, data)
    keys = _with(settings, lambda found: found.every())
    if as_json:
        output.emit([_told(key) for key in keys])
        return
    if not keys:
        typer.echo("There are no keys. Make one with `seamline keys create NAME`.")
        return
    rows = [
        [key.id, key.name, key.user, ", ".join(key.roles), _scopes(key), _date(key.expires), _state(key)]
        for key in keys
    ]
    columns = ("id", "name", "user", "roles", "scopes", "expires", "state")
    output.console().print(output.table(dict.fromkeys(columns, "left"), rows))


@app.command(cls=ManualCommand, epilog="seamline keys rotate k3x9... --overlap 1d")
def rotate(
    identity: Id,
    overlap: Annotated[str, typer.Option("--overlap", help="For how long the old secret holds: 1d, 1h, 0.")] = "1d",
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Give a key a new secret; the old one holds for a while."""
    overlap_s = valid_seconds(overlap)
    settings = connect.read_settings(app_folder, data)
    key, text = _with(settings, lambda keys: keys.rotate(identity, overlap_s=overlap_s))
    _show_new(key, text, settings, as_json=as_json)


@app.command(cls=ManualCommand, epilog="seamline keys revoke k3x9...")
def revoke(identity: Id, app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """Have a key refused from now on."""
    key = _with(connect.read_settings(app_folder, data), lambda keys: keys.revoke(identity))
    if as_json:
        output.emit(_told(key))
    else:
        typer.echo(f"The key {key.id} ({key.name}) is revoked.")


def _with(settings: Settings, work: Callable[[ApiKeys], Awaitable[T]]) -> T:
    from seamline.gateway.auth.api_keys import ApiKeys
    from seamline.kernel.clock import SystemClock
    from seamline.run.doorway import gateway_records

    async def run() -> T:
        records = gateway_records(settings, settings.prepare_data_folder(), SystemClock())
        await records.open()
        try:
            return await work(ApiKeys(records))
        finally:
            await records.close()

    return asyncio.run(run())


def _show_new(key: ApiKey, text: str, settings: Settings, *, as_json: bool) -> None:
    if as_json:
        output.emit({**_told(key), "key": text})
        return
    typer.echo(text)
    typer.echo(f"This is shown once. The key's id is {key.id}; it expires {_date(key.expires)}.", err=True)
    if not settings.auth.api_keys:
        typer.echo("Gateways do not take keys yet: say api_keys = true under [auth].", err=True)


def _told(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id, "name": key.name, "user": key.user, "roles": list(key.roles),
        "scopes": list(key.scopes) if key.scopes is not None else None, "tenant": key.tenant,
        "created_at": key.created, "expires_at": key.expires, "state": _state(key),
    }  # fmt: skip


def _scopes(key: ApiKey) -> str:
    return "all" if key.scopes is None else ", ".join(key.scopes)


def _state(key: ApiKey) -> str:
    now = datetime.now(UTC).timestamp()
    if key.revoked:
        return "revoked"
    if key.expires and key.expires <= now:
        return "expired"
    return "two secrets" if key.old_until > now else "good"


def _date(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M") if moment else "never"
