"""``seamline models keys|gateway``: the AI gateway's keys, and the gateway alone."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from seamline.cli import connect, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand, ManualGroup
from seamline.cli.options import App, Data, Json
from seamline.cli.times import valid_seconds

if TYPE_CHECKING:
    from seamline.models.gateway.keys import Key, Keys
    from seamline.models.gateway.ledger import Spent
    from seamline.models.gateway.quota import Per

keys_app = typer.Typer(
    add_completion=False,
    cls=ManualGroup,
    help="""Keys of the AI gateway. A key is shown once, when it is made; only a hash is kept.

    A client sends it as OpenAI's or Anthropic's clients send theirs. A change reaches every process within a second.
    """,
    epilog="""
    seamline models keys create "search team" --model fast --team search --money 50 --per month
    seamline models keys list
    seamline models keys spent
    seamline models keys revoke key-12ab...
    """,
)


def add_to(app: typer.Typer) -> None:
    """The commands of this file."""
    app.add_typer(keys_app, name="keys", cls=ManualGroup)
    app.command(
        "gateway",
        cls=ManualCommand,
        epilog="""
        seamline models gateway --config ai.toml
        seamline models gateway --config ai.toml --listen 127.0.0.1:8090
        """,
    )(gateway)


def gateway(
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="A file with [ai_gateway].")],
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Instead of the file's.")] = "",
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Of keys and budgets.")] = Path(".seamline"),
) -> None:
    """The AI gateway alone, without an application, until it is interrupted."""
    import dataclasses

    import uvloop

    from seamline.kernel.settings import load_ai_gateway
    from seamline.models.gateway.__main__ import serve

    settings = load_ai_gateway(config)
    uvloop.run(serve(dataclasses.replace(settings, listen=listen or settings.listen or "127.0.0.1:8090"), data))


@keys_app.command(
    cls=ManualCommand,
    epilog="""
    seamline models keys create ci --model fast --valid 30d
    seamline models keys create "search team" --team search --money 50 --per month
    seamline models keys create batch --tokens 1000000 --per day --json
    """,
)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for, for people.")],
    model: Annotated[list[str] | None, typer.Option("--model", help="Which it may ask; all by default.")] = None,
    user: Annotated[str, typer.Option("--user", help="For whom its calls are.")] = "",
    tenant: Annotated[str, typer.Option("--tenant", help="Of which tenant.")] = "",
    team: Annotated[str, typer.Option("--team", help="Of which team.")] = "",
    agent: Annotated[str, typer.Option("--agent", help="Of which agent.")] = "",
    money: Annotated[str, typer.Option("--money", metavar="AMOUNT", help="What it may spend, such as 50 or 0.5.")] = "",
    tokens: Annotated[int, typer.Option("--tokens", metavar="N", min=0, help="Tokens that it may use.")] = 0,
    requests: Annotated[int, typer.Option("--requests", metavar="N", min=0, help="Calls that it may make.")] = 0,
    per: Annotated[str, typer.Option("--per", help="Of these: minute, hour, day, month, total.")] = "month",
    valid: Annotated[str, typer.Option("--valid", help="For how long: 90d, 12h; 0 is for ever.")] = "90d",
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a key and show it, this once."""
    limits = _limits(name, money, tokens, requests, per)
    valid_s = valid_seconds(valid)
    expires_ms = int((datetime.now(UTC).timestamp() + valid_s) * 1000) if valid_s else 0
    with _keys(app_folder, data) as keys:
        text, key = keys.make(
            name, by=getpass.getuser(), models=model or (), limits=limits, expires_ms=expires_ms, user=user,
            tenant=tenant, team=team, agent=agent,
        )  # fmt: skip
    if as_json:
        output.emit({**_told(key), "key": text})
        return
    typer.echo(text)
    typer.echo(f"This is shown once. The key's id is {key.id}; it expires {_date(key.expires_ms)}.", err=True)


@keys_app.command("list", cls=ManualCommand, epilog="seamline models keys list --json   # for a script")
def list_keys(app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """All keys, without what opens anything."""
    with _keys(app_folder, data) as keys:
        found = keys.list()
    if as_json:
        output.emit([_told(key) for key in found])
        return
    if not found:
        typer.echo("There are no keys. Make one with `seamline models keys create NAME`.")
        return
    columns: dict[str, str] = dict.fromkeys(("id", "name", "models", "for", "limits", "expires", "state"), "left")
    rows = [
        [
            key.id,
            key.name,
            ", ".join(sorted(key.models)) or "all",
            " ".join(filter(None, (key.user, key.tenant, key.team, key.agent))) or "-",
            ", ".join(limit.name for limit in key.limits) or "-",
            _date(key.expires_ms),
            _state(key),
        ]
        for key in found
    ]
    output.console().print(output.table(columns, [[output.harmless(cell) for cell in row] for row in rows]))


@keys_app.command(cls=ManualCommand, epilog="seamline models keys revoke key-12ab...")
def revoke(
    identity: Annotated[str, typer.Argument(metavar="ID", help="As `seamline models keys list` has it.")],
    app_folder: App = None,
    data: Data = None,
) -> None:
    """Have a key refused from now on, within a second everywhere."""
    with _keys(app_folder, data) as keys:
        keys.revoke(identity, by=getpass.getuser())
    typer.echo(f"The key {identity} is revoked.")


@keys_app.command(
    cls=ManualCommand,
    epilog="""
    seamline models keys spent
    seamline models keys spent --all --json   # with what has ended, for a script
    """,
)
def spent(
    app_folder: App = None,
    data: Data = None,
    every: Annotated[bool, typer.Option("--all", help="Windows that have ended, too.")] = False,
    as_json: Json = False,
) -> None:
    """What was used of each budget, and by each key in this month."""
    from seamline.models.gateway.ledger import budgets_beside, spent_in
    from seamline.models.gateway.quota import window

    settings = connect.read_settings(app_folder, data)
    now_s = datetime.now(UTC).timestamp()
    found = spent_in(budgets_beside(settings.prepare_data_folder() / settings.ai_gateway.keys))
    found = [each for each in found if every or each.begins == window(cast("Per", each.per), now_s)[0]]
    with _keys(app_folder, data) as keys:
        names = {key.id: key.name for key in keys.list()}
    told = [_spent(each, names) for each in found]
    if as_json:
        output.emit(told)
        return
    if not told:
        typer.echo("Nothing was spent.")
        return
    columns: dict[str, str] = dict.fromkeys(("of", "counted", "unit", "per", "since", "models"), "left")
    columns |= {"used": "right", "held": "right"}
    rows = [[" ".join(each[name]) if name == "models" else str(each[name]) for name in columns] for each in told]
    output.console().print(output.table(columns, [[output.harmless(cell) for cell in row] for row in rows]))


def _spent(spent: Spent, names: dict[str, str]) -> dict[str, Any]:
    from seamline.models.gateway.prices import money

    show = money if spent.unit == "money" else str
    kind, _, of = spent.account.partition(":")
    return {
        "of": f"{'key' if kind == 'used' else kind} {names.get(of, of)}".strip(),
        "counted": "always" if kind == "used" else "limit",
        "unit": spent.unit,
        "per": spent.per,
        "since": _date(spent.begins * 1000) if spent.begins else "ever",
        "models": list(spent.models),
        "used": show(spent.used),
        "held": show(spent.held),
    }


@contextlib.contextmanager
def _keys(app_folder: Path | None, data: Path | None) -> Generator[Keys]:
    from seamline.models.gateway.keys import Keys

    settings = connect.read_settings(app_folder, data)
    keys = Keys(settings.prepare_data_folder() / settings.ai_gateway.keys)
    try:
        yield keys
    finally:
        keys.close()


def _limits(name: str, money: str, tokens: int, requests: int, per: str) -> list[Any]:
    """What the key may use; ``total`` is for all its life."""
    from decimal import Decimal, InvalidOperation

    from seamline.models.gateway.prices import nano
    from seamline.models.gateway.quota import Limit, Per, Unit

    if per not in get_args(Per):
        raise ArgumentError(f"{per!r} is no window", f"--per is one of {', '.join(get_args(Per))}.")
    try:
        most: dict[Unit, int] = {"money": nano(Decimal(money)) if money else 0, "tokens": tokens, "requests": requests}
    except (ValueError, InvalidOperation):
        raise ArgumentError(f"{money!r} is no amount", "Such as --money 50 or --money 0.5.") from None
    return [
        Limit(name=f"{name} {unit}", by="key", unit=unit, most=count, per=cast("Per", per))
        for unit, count in most.items()
        if count
    ]


def _told(key: Key) -> dict[str, Any]:
    return {
        "id": key.id, "name": key.name, "models": sorted(key.models), "user": key.user, "tenant": key.tenant,
        "team": key.team, "agent": key.agent, "limits": [each.to_json() for each in key.limits],
        "made_ms": key.made_ms, "expires_ms": key.expires_ms, "ends_with": key.hint, "state": _state(key),
    }  # fmt: skip


def _state(key: Key) -> str:
    if key.revoked_ms:
        return "revoked"
    return "expired" if key.expires_ms and key.expires_ms <= datetime.now(UTC).timestamp() * 1000 else "good"


def _date(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M") if moment_ms else "never"
