"""``seamline models eval|drift|replay``: how well versions do, and what they would have decided."""

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
_SHOWN: Final = 20
_LESS_IS_BETTER: Final = frozenset({"errors", "ms", "refusal", "toxicity"})
_OF_NO_WORTH: Final = frozenset({"cases", "words", "as then"})


def add_to(app: typer.Typer) -> None:
    """The commands of this file."""
    app.command(
        "eval",
        cls=ManualCommand,
        epilog="""
        seamline models eval Recommendations                        # by the measure of its own
        seamline models eval Recommendations popular hybrid --json
        seamline models eval Similar --cases known.jsonl            # what each answers right
        seamline models eval ShopTalk tiny-1 tiny-2 --dataset questions --examples 10
        """,
    )(evaluate)
    app.command(
        "replay",
        cls=ManualCommand,
        epilog="""
        seamline models replay Fraud --since 7d                  # by today's model and today's rules
        seamline models replay Fraud --version stumps-1          # by another version of the model
        seamline models replay Fraud --policy stricter --json    # by rules that are only tried
        """,
    )(replay)
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
    dataset: Annotated[str, typer.Option("--dataset", metavar="NAME", help="What was captured; see `datasets`.")] = "",
    last: Annotated[
        int, typer.Option("--last", metavar="N", min=1, help="Of a dataset so many calls, the newest.")
    ] = 1000,
    examples: Annotated[
        int,
        typer.Option("--examples", metavar="N", min=0, max=200, help="Show so many, first those they differ on."),
    ] = 0,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Versions side by side: by their class's `evaluate`, by known cases, or by what was captured of those who agreed.

    It is asked of the running application.
    """
    if dataset and cases is not None:
        raise ArgumentError("--dataset and --cases are two things to be asked", "Give one of them.")
    settings = connect.read_settings(app_folder, data)
    given = _cases(cases) if cases is not None else []
    asked = {"versions": versions or [], "cases": given, "dataset": dataset, "last": last, "examples": examples}
    with output.progress(quiet=as_json) as say:
        found = connect.ask(settings, "model_evaluate", say, contract=contract, **asked)
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
    for example in found.get("examples", ()):
        _show(example)


def replay(
    contract: Annotated[str, typer.Argument(metavar="CONTRACT", help="Of the model that decides; see `list`.")],
    since: Since = "7d",
    version: Annotated[
        str, typer.Option("--version", metavar="VERSION", help="Of the model; the champion when none is named.")
    ] = "",
    policy: Annotated[
        Path | None, typer.Option("--policy", metavar="PATH", help="Rules instead of those in force: a folder or file.")
    ] = None,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """What today's model and rules would have decided. It is asked of the running application, and changes nothing."""
    settings = connect.read_settings(app_folder, data)
    since_s = max(time.time() - past_ns(since) / 1e9, 0.0)
    given = _policy(policy) if policy is not None else {}
    with output.progress(quiet=as_json) as say:
        found = connect.ask(
            settings, "model_replay", say, contract=contract, since_s=since_s, version=version, policy=given
        )
    if as_json:
        output.emit(found)
        return
    changed = sum(count for became in found["changes"].values() for count in became.values())
    rules = f"the policy {found['policy']}" if found["policy"] else "today's rules"
    unknown = f", {found['unknown']:,} whose past is not kept" if found["unknown"] else ""
    newest = ", the newest" if found["left_out"] else ""
    typer.echo(
        f"{found['decided']:,} decisions{newest} since {found['since'][:16].replace('T', ' ')}, by "
        f"{contract}@{found['version']} and {rules}: {found['same']:,} as before, {changed:,} changed{unknown}."
    )
    if changed:
        console = output.console()
        console.print(_changes(found["changes"]))
        typer.echo("")
        console.print(_changed(found["cases"][:_SHOWN]))
        if changed > _SHOWN:
            typer.echo(f"... and {changed - _SHOWN:,} more; --json has {len(found['cases'])} of them.")


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


def _show(example: Mapping[str, Any]) -> None:
    """One case: what was asked, what was known or answered then, and what each version says."""
    typer.echo("")
    typer.echo(output.harmless(f"{example['method']} {example['asked']}"))
    known = {name: example[name] for name in ("expected", "then") if name in example}
    width = max(len(name) for name in [*known, *example["answers"]])
    for name, said in {**known, **example["answers"]}.items():
        typer.echo(f"  {output.harmless(name):<{width}}  {output.harmless(said)}")


def _changes(changes: Mapping[str, Mapping[str, int]]) -> Any:
    rows = [(then, now, count) for then, became in changes.items() for now, count in became.items()]
    rows.sort(key=lambda row: -row[2])
    columns = {"then": "fixed", "today": "fixed", "decisions": "right"}
    return output.table(columns, [[output.plain(then), output.plain(now), f"{count:,}"] for then, now, count in rows])


def _changed(cases: Sequence[Mapping[str, Any]]) -> Any:
    columns = {"at": "fixed", "case": "fixed", "then": "fixed", "today": "fixed", "score": "fixed", "by": "fixed",
               "why": "left"}  # fmt: skip
    rows: list[list[str]] = []
    for each in cases:
        scores = [figure(each[name]) if each[name] is not None else "-" for name in ("score_before", "score_after")]
        at = each["at"][:16].replace("T", " ")
        rows.append(
            [at, each["id"], each["before"], each["after"], " → ".join(scores), each["changed_by"], each["why"]]
        )
    return output.table(columns, [[output.plain(cell) for cell in row] for row in rows])


def _policy(path: Path) -> dict[str, str]:
    """The texts of a folder, or of one file, by name. Raises ArgumentError."""
    try:
        files = [path] if path.is_file() else sorted(each for each in path.iterdir() if each.is_file())
        found = {each.name: each.read_text(encoding="utf-8") for each in files if not each.name.startswith(".")}
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{str(path)!r} cannot be read: {error}", "Name a folder of texts, or one.") from None
    if not found or sum(map(len, found.values())) > _REQUEST_BYTES_MAX:
        raise ArgumentError(f"{str(path)!r} has {len(found)} files", "At least one, and 900 KB together at most.")
    return found


def _side_by_side(results: Mapping[str, Mapping[str, float]]) -> Any:
    """One row a measure; the best of each in bold, where it is known which is."""
    measures = list(dict.fromkeys(name for told in results.values() for name in told))
    rows: list[list[str]] = []
    for measure in measures:
        values = [results[version].get(measure) for version in results]
        known = [value for value in values if value is not None]
        best = (min if measure in _LESS_IS_BETTER else max)(known)
        shown = ["-" if value is None else figure(value) for value in values]
        same = len(set(known)) == 1 or measure in _OF_NO_WORTH
        marked = [
            f"[bold]{text}[/bold]" if value == best and not same else text
            for value, text in zip(values, shown, strict=True)
        ]
        rows.append([output.plain(measure), *marked])
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
