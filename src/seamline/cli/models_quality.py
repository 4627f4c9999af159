"""``seamline models eval|drift``: how well versions do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from seamline.cli import connect, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand
from seamline.cli.metrics import figure, sparkline
from seamline.cli.options import App, Data, Json
from seamline.cli.times import past_ns
from seamline.cli.traces import Since, kept

if TYPE_CHECKING:
    from seamline.observe.store.query import Series

_PREFIX: Final = "seamline.model."
_STEPS: Final = 40
_CASES_MAX: Final = 2_000
_REQUEST_BYTES_MAX: Final = 900_000


def add_to(app: typer.Typer) -> None:
    """The commands of this file."""
    app.command(
        "eval",
        cls=ManualCommand,
        epilog="""
        seamline models eval Recommendations                        # by the measure of its own
        seamline models eval Recommendations popular hybrid --json
        seamline models eval Similar --cases known.jsonl            # what each answers right
        """,
    )(evaluate)
    app.command(
        "drift",
        cls=ManualCommand,
        epilog="""
        seamline models drift
        seamline models drift Fraud --since 7d
        """,
    )(drift)


def evaluate(
    contract: Annotated[str, typer.Argument(metavar="CONTRACT", help="Which the models answer; see `list`.")],
    versions: Annotated[
        list[str] | None, typer.Argument(metavar="[VERSION...]", help="All when none is named.")
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option("--cases", metavar="FILE", help="JSON lines: method, arguments, expected."),
    ] = None,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Versions side by side: by their class's `evaluate`, or by known cases. It is asked of the running application."""
    settings = connect.read_settings(app_folder, data)
    given = _cases(cases) if cases is not None else []
    with output.progress(quiet=as_json) as say:
        found = connect.ask(settings, "model_evaluate", say, contract=contract, versions=versions or [], cases=given)
    if as_json:
        output.emit(found)
        return
    results: Mapping[str, Mapping[str, float]] = found["versions"]
    if not results:
        typer.echo(
            f"No version of {contract} can be evaluated: give its class `def evaluate(self) -> dict[str, float]`."
        )
        raise typer.Exit(output.STATUS_FOUND_WANTING)
    output.console().print(_side_by_side(results))


def drift(
    contract: Annotated[str, typer.Argument(metavar="[CONTRACT]", help="Only of this one.")] = "",
    since: Since = "1d",
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Scores of models over time: drift, quality, refusals, cost. What is kept is read, also when nothing runs."""
    now_ns, since_ns = time.time_ns(), past_ns(since)
    step_ns = max((now_ns - since_ns) // _STEPS, 1)
    with kept(connect.read_settings(app_folder, data)) as reader:
        names = sorted(each.name for each in reader.metric_names(since_ns) if each.name.startswith(_prefix(contract)))
        found = [
            each
            for name in names
            for each in reader.metric(name, module="", since_ns=since_ns, until_ns=now_ns, step_ns=step_ns)
        ]
    if as_json:
        output.emit([{"name": each.name, "module": each.module, "values": _values(each)} for each in found])
        return
    if not found:
        typer.echo(f"No model{f' of {contract}' if contract else ''} told a score since {since}.")
        return
    columns = {
        "model": "fixed",
        "score": "fixed",
        "module": "fixed",
        f"last {since}": "fixed",
        "first": "right",
        "now": "right",
    }
    output.console().print(output.table(columns, map(_row, found)))


def _prefix(contract: str) -> str:
    return f"{_PREFIX}{contract}." if contract else _PREFIX


def _values(series: Series) -> Sequence[float | None]:
    return series.columns.get("value") or next(iter(series.columns.values()), ())


def _row(series: Series) -> list[str]:
    values = _values(series)
    known = [value for value in values if value is not None]
    about = series.attributes
    model, version = about.get("seamline.model", ""), about.get("seamline.model.version", "")
    score = series.name.removeprefix(_PREFIX).removeprefix(f"{model}.{version}.") if model else series.name
    first, now = (figure(known[0]), figure(known[-1])) if known else ("-", "-")
    name = f"{model} {version}".strip() or "-"
    return [output.harmless(each) for each in (name, score, series.module or "-", sparkline(values), first, now)]


def _side_by_side(results: Mapping[str, Mapping[str, float]]) -> Any:
    """One row a measure; the best of each in bold, where it is known which is."""
    from rich.markup import escape

    measures = list(dict.fromkeys(name for told in results.values() for name in told))
    rows: list[list[str]] = []
    for measure in measures:
        values = [results[version].get(measure) for version in results]
        known = [value for value in values if value is not None]
        best = (min if measure in {"errors", "ms"} else max)(known)
        shown = ["-" if value is None else figure(value) for value in values]
        same = len(set(known)) == 1
        marked = [
            f"[bold]{text}[/bold]" if value == best and not same else text
            for value, text in zip(values, shown, strict=True)
        ]
        rows.append([escape(output.harmless(measure)), *marked])
    return output.table({"measure": "fixed"} | {output.harmless(version): "right" for version in results}, rows)


def _cases(path: Path) -> list[dict[str, Any]]:
    """Raises ArgumentError for a file that has none."""
    import json

    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise ArgumentError(f"{str(path)!r} cannot be read: {error.strerror}", "Name a file of JSON lines.") from None
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        try:
            each = json.loads(line)
            found.append({name: each[name] for name in ("method", "arguments", "expected")})
        except (ValueError, KeyError, TypeError):
            raise ArgumentError(
                f"line {number} of {str(path)!r} is no case", '{"method": "...", "arguments": {...}, "expected": ...}'
            ) from None
    if not 0 < len(found) <= _CASES_MAX or sum(map(len, lines)) > _REQUEST_BYTES_MAX:
        raise ArgumentError(f"{str(path)!r} has {len(found)} cases", f"1 to {_CASES_MAX}, of 900 KB together.")
    return found
