"""The options that say who asks, and with which arguments."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, cast

import typer

from seamline.cli.errors import ArgumentError

User = Annotated[str | None, typer.Option("--user", metavar="ID", help="On whose behalf; nobody otherwise.")]
Roles = Annotated[list[str] | None, typer.Option("--role", metavar="ROLE", help="A role of the user; may be repeated.")]
Args = Annotated[
    list[str] | None,
    typer.Option("--arg", metavar="PATH=VALUE", help="An argument as policy reads it, amount.cents=5000; repeatable."),
]
Attributes = Annotated[
    list[str] | None,
    typer.Option("--attribute", metavar="NAME=VALUE", help="Of the user: tenant, level or one of its own; repeatable."),
]
Agent = Annotated[str | None, typer.Option("--agent", metavar="NAME", help="The agent that acts for the user.")]
Method = Annotated[str | None, typer.Option("--method", metavar="METHOD", help="Of public HTTP.")]
Path_ = Annotated[str | None, typer.Option("--path", metavar="PATH", help="Of public HTTP.")]

_PLAIN = ("issuer", "tenant", "email", "level", "client")


def request_fields(
    user: str | None,
    roles: list[str] | None,
    arguments: list[str] | None,
    attributes: list[str] | None,
    agent: str | None,
    method: str | None,
    path: str | None,
) -> dict[str, Any]:
    """The request as ``tests.toml`` would write it. Raises ArgumentError."""
    given = {"user": user, "agent": agent, "method": method, "path": path}
    fields: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if roles:
        fields["roles"] = roles
    if arguments:
        fields["args"] = _tree(_pairs(arguments, "--arg"))
    for name, value in _pairs(attributes or (), "--attribute"):
        if name in _PLAIN:
            fields[name] = str(value)
        else:
            fields.setdefault("attributes", {})[name] = value
    return fields


def _pairs(texts: Iterable[str], option: str) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ArgumentError(f"{option} {text!r} is not NAME=VALUE", f"Write {option} amount.cents=5000")
        try:
            pairs.append((name, json.loads(value)))
        except ValueError:
            pairs.append((name, value))
    return pairs


def _tree(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in pairs:
        *folders, last = path.split(".")
        place = tree
        for folder in folders:
            inner: Any = place.setdefault(folder, {})
            if not isinstance(inner, dict):
                raise ArgumentError(f"--arg {path} goes through {folder!r}, which has a value", "Give one of the two.")
            place = cast("dict[str, Any]", inner)
        place[last] = value
    return tree
