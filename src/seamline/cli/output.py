"""What a command prints: tables, figures and JSON on stdout, errors as one sentence on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from seamline.kernel.errors import SeamlineError

if TYPE_CHECKING:
    from rich.console import Console

STATUS_FOUND_WANTING = 1
STATUS_USAGE = 2
STATUS_DEFECT = 70


@dataclass
class State:
    """What the options before the verb have set."""

    traceback: bool = False


state = State()


def console(*, errors: bool = False) -> Console:
    """A console that writes plain text where it is not a terminal, at a width that fits tables."""
    from rich.console import Console

    stream = sys.stderr if errors else sys.stdout
    plain_width = None if stream.isatty() else 140
    return Console(file=stream, highlight=False, soft_wrap=False, width=plain_width, emoji=False)


def emit(value: Any) -> None:
    """Print a value as JSON."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def status_of(code: str) -> int:
    """The exit status for an error code: its range, so that a script can tell them apart."""
    digit = code[2:3]
    if digit in "12345678" and digit:
        return int(digit) + 2
    return STATUS_USAGE if digit == "9" else 1


def fail(error: SeamlineError, *, as_json: bool) -> int:
    """Print one error, and say with which status to end."""
    return fail_all([error], as_json=as_json, cause=error)


def fail_group(group: ExceptionGroup[Exception], *, as_json: bool) -> int:
    """Print the errors of a group that people can read; anything else in it is a defect."""
    leaves = list(flatten(group))
    readable = [leaf for leaf in leaves if isinstance(leaf, SeamlineError)]
    if len(readable) < len(leaves):
        return defect(group, as_json=as_json)
    return fail_all(readable, as_json=as_json, cause=group)


def flatten(error: BaseException) -> Iterable[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from flatten(each)
    else:
        yield error


def fail_all(errors: Sequence[SeamlineError], *, as_json: bool, cause: BaseException) -> int:
    if as_json:
        emit({"error": errors[0].to_json()})
    elif state.traceback:
        print_traceback(cause)
    else:
        for error in errors:
            print_error(error.code, str(error).removeprefix(f"{error.code}: "))
    return status_of(errors[0].code)


def print_error(code: str, sentence: str) -> None:
    from rich.text import Text

    text = Text.assemble((code, "bold red"), ": ", sentence)
    console(errors=True).print(text, soft_wrap=True)


def misused(error: Any, *, as_json: bool) -> int:
    """A command line that the parser refused: its sentence, and where to read on."""
    sentence = str(error.format_message()).strip()
    sentence += "" if sentence.endswith((".", "?")) else "."
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "seamline"
    if as_json:
        emit({"error": {"code": "usage", "fact": sentence, "remedy": f"Read {path} --help", "place": None}})
    else:
        print_error("usage", f"{sentence} Read `{path} --help`.")
    return STATUS_USAGE


def defect(error: BaseException, *, as_json: bool) -> int:
    """An error nobody foresaw: never a traceback unless asked for."""
    fact = f"{type(error).__name__}: {error}"
    remedy = "This is a defect; `seamline --traceback VERB` shows where."
    if as_json:
        emit({"error": {"code": SeamlineError.code, "fact": fact, "remedy": remedy, "place": None}})
    elif state.traceback:
        print_traceback(error)
    else:
        print_error(SeamlineError.code, str(SeamlineError(fact, remedy)).removeprefix("SL0000: "))
    return STATUS_DEFECT


def print_traceback(error: BaseException) -> None:
    import traceback

    sys.stderr.write("".join(traceback.format_exception(error)))


def abandon_stdout() -> None:
    """The reader has gone away (``| head``): let the interpreter's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def table(columns: Mapping[str, str], rows: Iterable[Sequence[str]]) -> Any:
    """A plain table. ``columns`` maps each heading to ``left`` (may wrap), ``fixed`` (left, never wraps) or ``right``.

    Cells may hold rich markup.
    """
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold", show_edge=False)
    for heading, side in columns.items():
        drawn.add_column(heading, justify="right" if side == "right" else "left", no_wrap=side != "left")
    for row in rows:
        drawn.add_row(*row)
    return drawn


def harmless(text: str) -> str:
    """What a stranger has had a hand in must not speak to the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def plain(text: str) -> str:
    """The same in a cell of a table, where brackets are no markup."""
    from rich.markup import escape

    return escape(harmless(text))


def milliseconds(value: float | None) -> str:
    """Two or three figures: ``3 µs``, ``0.31 ms``, ``12.4 ms``, ``1.52 s``."""
    if value is None:
        return "-"
    if value < 0.1:
        return f"{value * 1000:.0f} µs"
    if value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


def size(count: float | None) -> str:
    """Bytes in the unit that people read: ``78 MB``."""
    if count is None:
        return "-"
    if count >= 1 << 30:
        return f"{count / (1 << 30):.1f} GB"
    return f"{count / (1 << 20):.0f} MB" if count >= 1 << 20 else f"{count / 1024:.0f} KB"


def megabytes(value: float) -> str:
    """``63 MB``; a dash for a process that has not told yet."""
    return f"{value:.0f} MB" if value else "-"


def lasted(seconds: float | None) -> str:
    """A span of time at a glance: ``4.2 s``, ``3 min 10 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


@contextmanager
def progress(*, quiet: bool) -> Generator[Callable[[str], None] | None]:
    """Show the progress of something long: a moving line on a terminal, a line each elsewhere."""
    if quiet:
        yield None
    elif sys.stdout.isatty():
        with console().status("") as status:
            yield status.update
    else:
        yield print
