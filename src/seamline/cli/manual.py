"""How help is written: like a manual page that fits a terminal.

Every command of the tool is a ``ManualCommand``, every group a ``ManualGroup``: usage, what it does,
examples (the ``epilog``, one a line, ``command  # what it is for``), arguments and options, in plain aligned
columns. Colour stands only where a terminal shows it.
"""

from __future__ import annotations

import inspect
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import typer
import typer.core

WIDTH_MAX = 100
Rows = Sequence[tuple[str, str]]


class ManualCommand(typer.core.TyperCommand):
    """A command whose help is a manual page."""

    def get_help(self, ctx: Any) -> str:
        return page(self, ctx)


class ManualGroup(typer.core.TyperGroup):
    """A group of commands whose help is a manual page."""

    def get_help(self, ctx: Any) -> str:
        return page(self, ctx, commands=self.rows(ctx))

    def rows(self, ctx: Any) -> Rows:
        """The name and the one-line summary of each command."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        return [(name, summary(command.help)) for name, command in found if command and not command.hidden]


def page(command: Any, ctx: Any, commands: Rows = ()) -> str:
    """The manual page of one command."""
    text = inspect.cleandoc(command.help or "")
    blocks = [usage(command, ctx), paragraphs(text)]
    if command.epilog:
        blocks.append(section("Examples", examples(command.epilog)))
    if commands:
        blocks.append(section("Commands", columns(commands)))
    for kind, title in (("argument", "Arguments"), ("option", "Options")):
        rows = [row for row in (described(param, ctx) for param in command.get_params(ctx)) if row and row[2] == kind]
        if rows:
            blocks.append(section(title, columns([(left, right) for left, right, _ in rows])))
    return "\n\n".join(blocks)


def described(param: Any, ctx: Any) -> tuple[str, str, str] | None:
    """How a parameter is typed, what it does, and whether it is an argument or an option."""
    record = param.get_help_record(ctx)
    if record is None:
        return None
    kind = param.param_type_name
    return (typed(param) if kind == "argument" else record[0], record[1].replace("  [required]", ""), kind)


def typed(argument: Any) -> str:
    """``NAME``, ``[NAME]`` where it may be left out, ``NAME...`` where it may be repeated."""
    name = (argument.metavar or str(argument.name).upper()).strip("[].")
    repeated = f"{name}..." if argument.nargs == -1 else name
    return repeated if argument.required else f"[{repeated}]"


def usage(command: Any, ctx: Any) -> str:
    arguments = [typed(param) for param in command.get_params(ctx) if param.param_type_name == "argument"]
    pieces = ["COMMAND"] if isinstance(command, typer.core.TyperGroup) else arguments
    return f"{strong('Usage:')} {' '.join([ctx.command_path, *pieces])} [options]"


def section(title: str, body: str) -> str:
    return f"{strong(title)}\n{body}"


def summary(text: str | None) -> str:
    """The first sentence of a docstring, without its full stop."""
    first = inspect.cleandoc(text or "").split("\n\n", 1)[0].replace("\n", " ")
    return first.split(". ", 1)[0].removesuffix(".")


def examples(epilog: str) -> str:
    """Lines of ``command  # what it is for`` as two columns."""
    lines = inspect.cleandoc(epilog).splitlines()
    split = [line.partition("#") for line in lines]
    return columns([(typed.strip(), said.strip()) for typed, _, said in split], left_max=56)


def columns(rows: Iterable[tuple[str, str]], indent: int = 2, gap: int = 3, left_max: int = 38) -> str:
    """Two columns; the right one is wrapped, a long left one stands on its own line."""
    known = list(rows)
    fitting = [len(left) for left, _ in known if len(left) <= left_max]
    left_width = max(fitting, default=20)
    margin = " " * (indent + left_width + gap)
    lines: list[str] = []
    for left, right in known:
        wrapped = textwrap.wrap(right, max(width() - len(margin), 24), break_long_words=False) or [""]
        named = " " * indent + lit(left)
        if len(left) > left_width:
            lines.append(named)
        else:
            lines.append((named + " " * (left_width - len(left) + gap) + wrapped.pop(0)).rstrip())
        lines.extend((margin + part).rstrip() for part in wrapped if part)
    return "\n".join(lines)


def paragraphs(text: str) -> str:
    """Wrap what is prose; keep indented blocks as they stand."""
    blocks = text.split("\n\n")
    kept = [block if block.startswith(" ") else textwrap.fill(block, width()) for block in blocks]
    return "\n\n".join(kept)


def width() -> int:
    return min(shutil.get_terminal_size((WIDTH_MAX, 24)).columns, WIDTH_MAX)


def strong(text: str) -> str:
    return typer.style(text, bold=True) if coloured() else text


def lit(text: str) -> str:
    return typer.style(text, fg="cyan") if coloured() else text


@cache
def coloured() -> bool:
    """Whether help may use colour: on a terminal, and not where NO_COLOR or TERM forbid it."""
    if not sys.stdout.isatty():
        return False
    from rich.console import Console

    console = Console()
    return console.color_system is not None and not console.no_color
