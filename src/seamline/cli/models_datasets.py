"""``seamline models datasets|forget``: what was captured of those who agreed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from seamline.cli import connect, output
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data, Json

if TYPE_CHECKING:
    from datetime import datetime

    from seamline.kernel.settings import Settings
    from seamline.models.watch.datasets import Datasets, Line


def add_to(app: typer.Typer) -> None:
    """The commands of this file."""
    app.command(
        "datasets",
        cls=ManualCommand,
        epilog="""
        seamline models datasets
        seamline models datasets questions --last 5    # what is in one of them
        seamline models eval ShopTalk --dataset questions
        """,
    )(datasets)
    app.command(
        "forget",
        cls=ManualCommand,
        epilog="""
        seamline models forget u77   # as your application calls them
        """,
    )(forget)


def datasets(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="What is in this one.")] = "",
    last: Annotated[int, typer.Option("--last", metavar="N", min=1, max=1000, help="So many, the newest.")] = 20,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """What models were asked and answered by those who agreed. It is read on disk, also when nothing runs."""
    import msgspec

    kept = _datasets(connect.read_settings(app_folder, data))
    if name:
        lines = kept.known(name).newest(last)
        if as_json:
            output.emit([msgspec.to_builtins(each) for each in lines])
            return
        columns = {"at": "fixed", "model": "fixed", "method": "fixed", "asked": "left", "answered": "left"}
        output.console().print(output.table(columns, map(_line, lines)))
        return
    found = kept.told()
    if as_json:
        output.emit([msgspec.to_builtins(each) for each in found])
        return
    if not found:
        typer.echo("Nothing was captured. A model captures with `Watch(capture=Capture(dataset=...))`.")
        return
    columns = {
        "dataset": "fixed", "calls": "right", "people": "right", "size": "right", "since": "fixed", "until": "fixed",
        "models": "left",
    }  # fmt: skip
    rows = [
        [
            each.name, f"{each.lines:,}", f"{each.subjects:,}", output.size(each.size), _moment(each.since),
            _moment(each.until), ", ".join(f"{model} {count:,}" for model, count in each.models.items()),
        ]
        for each in found
    ]  # fmt: skip
    output.console().print(output.table(columns, [[output.plain(cell) for cell in row] for row in rows]))


def forget(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="Who, as the application calls them.")],
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Somebody agrees no more: delete what was captured of them, and capture nothing more."""
    gone = _datasets(connect.read_settings(app_folder, data)).withdraw(subject)
    if as_json:
        output.emit({"deleted": gone})
        return
    typer.echo(f"{gone} captured call{'' if gone == 1 else 's'} of theirs deleted. Nothing more is captured of them.")


def _datasets(settings: Settings) -> Datasets:
    from seamline.kernel.clock import SystemClock
    from seamline.models.watch.datasets import FOLDER, Datasets

    return Datasets(settings.data_folder / FOLDER, SystemClock())


def _line(line: Line) -> list[str]:
    import msgspec

    asked, answered = (msgspec.json.encode(each).decode() for each in (line.asked, line.answered))
    cells = [_moment(line.at), f"{line.model}@{line.version}", line.method, _short(asked), _short(answered)]
    return [output.plain(cell) for cell in cells]


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:199]}…"


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at is not None else "-"
