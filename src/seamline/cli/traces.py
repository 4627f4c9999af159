"""``seamline traces``: what one request did, and which requests did it badly."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import connect, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data, Json
from seamline.cli.times import clock_time, past_ns

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings
    from seamline.observe.records import Span
    from seamline.observe.store import TelemetryReader
    from seamline.observe.store.query import TraceSummary
    from seamline.observe.waterfall import Row, Waterfall

app = typer.Typer(add_completion=False)

BAR = 40
"""Characters of the widest bar."""
MODULES_SHOWN = 5

Since = Annotated[str, typer.Option("--since", metavar="TIME", help="Since when: 15m, 2h, 7d, 2026-01-31T08:00.")]


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline traces --failed --since 1h            # what failed in the last hour
    seamline traces --module cart --slower-than 200
    seamline traces --where user.id=u77 --json
    seamline traces 6fb1c0...                      # one of them: what waited for what, and the critical path
    """,
)
def traces(
    trace_id: Annotated[str, typer.Argument(metavar="[ID]", help="Of one trace, or how it begins.")] = "",
    module: Annotated[str, typer.Option("--module", "-m", metavar="NAME", help="With a span of this module.")] = "",
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="With a span of this name.")] = "",
    failed: Annotated[bool, typer.Option("--failed", help="With a span that failed.")] = False,
    slower_than: Annotated[
        float, typer.Option("--slower-than", metavar="MS", min=0, help="With a span that took longer.")
    ] = 0,
    where: Annotated[
        list[str] | None, typer.Option("--where", metavar="KEY=VALUE", help="With a span that has this attribute.")
    ] = None,
    search: Annotated[str, typer.Option("--search", metavar="TEXT", help="With these words in a span.")] = "",
    since: Since = "15m",
    limit: Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, max=1000, help="How many.")] = 20,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The newest traces that fit, or one of them as a waterfall. What is kept is read, also when nothing runs.

    Module, method, failure, duration and attributes are asked of one and the same span.
    """
    from seamline.observe.store.query import TraceQuery

    settings = connect.read_settings(app_folder, data)
    with kept(settings) as reader:
        if trace_id:
            spans = reader.trace(_whole_id(reader, trace_id))
            if not spans:
                raise ArgumentError(f"there is no trace {trace_id!r}", "`seamline traces` lists those that are kept")
            _show_one(spans, as_json=as_json)
            return
        page = reader.traces(
            TraceQuery(
                module=module,
                name=method,
                status="failed" if failed else "",
                slower_than_ms=slower_than,
                attributes=dict(map(_pair, where or ())),
                text=search,
                since_ns=past_ns(since),
                limit=limit,
            )
        )
    _show_list(page.items, page.notes, as_json=as_json)


@contextmanager
def kept(settings: Settings) -> Generator[TelemetryReader]:
    """What the application's store has. Raises TelemetryMissingError."""
    from seamline.observe.store import TelemetryReader

    reader = TelemetryReader(settings.data_folder / "telemetry")
    try:
        yield reader
    finally:
        reader.close()


def _whole_id(reader: TelemetryReader, given: str) -> str:
    from seamline.observe.store.query import TraceQuery

    given = given.lower()
    if len(given) == 32:
        return given
    near = [each.trace_id for each in reader.traces(TraceQuery(limit=1000)).items if each.trace_id.startswith(given)]
    if len(near) != 1:
        fact = f"{len(near) or 'none'} of the last thousand traces begins with {given!r}"
        raise ArgumentError(fact, "Give all 32 digits of its id")
    return near[0]


def _pair(given: str) -> tuple[str, str]:
    key, equals, value = given.partition("=")
    if not equals or not key:
        raise ArgumentError(f"{given!r} is not KEY=VALUE", "Write an attribute and its value, user.id=u77")
    return key, value


def _show_list(found: Sequence[TraceSummary], notes: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        output.emit([to_json(each) for each in found])
        return
    columns = {"trace": "fixed", "began": "fixed", "name": "fixed", "took": "right", "spans": "right"}
    columns |= {"failed": "right", "modules": "left"}
    rows = [
        [
            each.trace_id,
            clock_time(each.started_ns),
            output.plain(each.name),
            output.milliseconds(each.duration_ms),
            str(each.spans),
            f"[bold red]{each.errors}[/]" if each.errors else "0",
            output.plain(" ".join(each.modules[:MODULES_SHOWN]) + (" …" if len(each.modules) > MODULES_SHOWN else "")),
        ]
        for each in found
    ]
    if rows:
        output.console().print(output.table(columns, rows))
    else:
        typer.echo("no such traces")
    for note in notes:
        typer.echo(note, err=True)


def to_json(each: TraceSummary) -> dict[str, Any]:
    return {
        "trace_id": each.trace_id,
        "name": each.name,
        "module": each.module,
        "started": clock_time(each.started_ns),
        "duration_ms": each.duration_ms,
        "spans": each.spans,
        "errors": each.errors,
        "modules": each.modules,
        "status": each.status,
    }


def _show_one(spans: Sequence[Span], *, as_json: bool) -> None:
    from seamline.observe.waterfall import waterfall

    found = waterfall(spans)
    if as_json:
        output.emit([span_json(row) for row in found.rows])
        return
    head = found.rows[0].span
    took = output.milliseconds(found.duration_ns / 1e6)
    typer.echo(f"{head.trace_id.hex()}  {clock_time(found.start_ns)}  {took}  {len(found.rows)} spans\n")
    columns = {"module": "fixed", "span": "fixed", "took": "right", "own": "right", "": "fixed", "status": "left"}
    rows = [
        [
            output.plain(row.span.module),
            output.plain("  " * row.depth + row.span.name),
            output.milliseconds(max(row.span.duration_ns, 0) / 1e6),
            output.milliseconds(row.self_ns / 1e6),
            bar(found, row),
            f"[bold red]{output.plain(f'{row.span.status} {row.span.message}'.strip())}[/]" if row.failed else "",
        ]
        for row in found.rows
    ]
    console = output.console()
    console.print(output.table(columns, rows))
    typer.echo("\n█ is on the critical path: only making that shorter makes the trace shorter.")
    shares = [(module, own, path) for module, _, own, path in found.by_module() if path]
    whole = sum(path for _, _, path in shares) or 1
    for module, own, path in shares[:MODULES_SHOWN]:
        said = f"{path / whole:4.0%} of the path, {output.milliseconds(own / 1e6)} of its own"
        typer.echo(f"{said}  {output.harmless(module)}")


def bar(found: Waterfall, row: Row) -> str:
    """When the span ran, with its own stretches of the critical path filled."""
    scale = BAR / max(found.duration_ns, 1)

    def cells(begin: int, until: int) -> range:
        first = min(max(int((begin - found.start_ns) * scale), 0), BAR - 1)
        return range(first, min(max(int((until - found.start_ns) * scale + 0.5), first + 1), BAR))

    drawn = [" "] * BAR
    for cell in cells(row.span.start_ns, row.end_ns):
        drawn[cell] = "░"
    for begin, until in row.critical:
        for cell in cells(begin, until):
            drawn[cell] = "█"
    return "".join(drawn)


def span_json(row: Row) -> dict[str, Any]:
    span = row.span
    return {
        "span_id": span.span_id.hex(),
        "parent_id": span.parent_id.hex(),
        "name": span.name,
        "kind": span.kind,
        "module": span.module,
        "peer": span.peer,
        "start_ns": span.start_ns,
        "duration_ns": span.duration_ns,
        "self_ns": row.self_ns,
        "critical_ns": row.critical_ns,
        "status": span.status,
        "message": span.message,
        "attributes": json.loads(json.dumps(span.attributes, default=_hex)),
        "workload": span.workload,
        "replica": span.replica,
    }


def _hex(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
