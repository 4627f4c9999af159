"""``seamline audit``: prove that nobody has altered it, search it, give it to other systems."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from seamline.cli import connect, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand, ManualGroup
from seamline.cli.options import App, Data, Json
from seamline.cli.times import past

if TYPE_CHECKING:
    from seamline.kernel.audit import Written
    from seamline.kernel.audit.search import Query
    from seamline.kernel.settings import Settings

app = typer.Typer(
    add_completion=False,
    cls=ManualGroup,
    help="""What was decided and done, in logs that show when somebody has altered them.

    Each line holds the hash of the one before it, and the supervisor signs how far each log has come.
    """,
    epilog="""
    seamline audit verify                        # what was changed, removed, put in or cut off, if anything
    seamline audit search --decision deny --since 1h
    seamline audit export --since 2026-01-01 > events.jsonl
    seamline audit heads > heads.json            # keep them elsewhere, and verify --against them
    """,
)

_POLL_S = 0.2
Since = Annotated[
    str, typer.Option("--since", metavar="TIME", help="Not before: 2026-01-31T08:00, or 15m, 1h, 7d ago.")
]
Until = Annotated[str, typer.Option("--until", metavar="TIME", help="Before this time.")]
Kind = Annotated[str, typer.Option("--kind", help="call, authentication, identity, secret, policy, admin, ...")]
Principal = Annotated[str, typer.Option("--principal", help="Who; a final * stands for any end.")]
Action = Annotated[str, typer.Option("--action", help="What; a final * stands for any end.")]
Decision = Annotated[str, typer.Option("--decision", help="allow, deny, refuse, revoke or fail.")]
Text = Annotated[str, typer.Argument(metavar="[TEXT]", help="Stands anywhere in the line.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")]


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline audit verify
    seamline audit verify --against heads.json --key 5f1c...   # with what was kept elsewhere
    """,
)
def verify(
    against: Annotated[
        Path | None, typer.Option("--against", metavar="FILE", help="What `seamline audit heads` printed.")
    ] = None,
    key: Annotated[str, typer.Option("--key", metavar="SHA256", help="The fingerprint of the key it printed.")] = "",
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Check every line against its hash, its neighbours and the signed checkpoints; the exit status is 1 if one fails.

    A line that a dying process left half written is told, and is no failure.
    """
    from seamline.kernel.audit.verify import verify as verify_folder

    settings = connect.read_settings(app_folder, data)
    kept, known = read_heads(against) if against else ([], "")
    # Those in memory first: what the folder has grown by since is then no surprise.
    held = running_heads(settings)
    reports = verify_folder(settings.data_folder / "audit", fingerprint=key or known, kept=kept, held=held)
    damaged = any(report.damaged for report in reports)
    if as_json:
        output.emit({"damaged": damaged, "running": bool(held), "logs": [report.to_json() for report in reports]})
    else:
        columns = {"log": "left", "lines": "right", "signed to": "right", "": "left"}
        rows = [
            (report.name, str(report.lines), str(report.signed or "-"), "altered" if report.damaged else "whole")
            for report in reports
        ]
        output.console().print(output.table(columns, rows))
        for report in reports:
            for finding in report.findings:
                typer.echo(f"{finding}")
        if not reports:
            typer.echo("There is no audit yet.")
    if damaged:
        raise typer.Exit(output.STATUS_FOUND_WANTING)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline audit search refund --since 1h
    seamline audit search --decision deny --principal "ads*" --json
    seamline audit search --kind admin --follow
    """,
)
def search(
    text: Text = "",
    since: Since = "",
    until: Until = "",
    kind: Kind = "",
    principal: Principal = "",
    action: Action = "",
    decision: Decision = "",
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", min=0, help="How many of the last; 0 all.")] = 100,
    follow: Follow = False,
    app_folder: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Lines of all logs in the order of time; with --json one object a line, as it was written."""
    from collections import deque

    from seamline.kernel.audit.search import Follower, entries

    folder = connect.read_settings(app_folder, data).data_folder / "audit"
    query = query_of(since, until, kind, principal, action, decision, text)
    follower = Follower(folder, query) if follow else None
    show(deque(entries(folder, query), maxlen=lines or None), as_json=as_json)
    while follower is not None:
        time.sleep(_POLL_S)
        show(follower.more(), as_json=as_json)


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline audit export --since 7d > events.jsonl
    seamline audit export --kind authentication --follow | vector ...
    """,
)
def export(
    since: Since = "",
    until: Until = "",
    kind: Kind = "",
    follow: Follow = False,
    app_folder: App = None,
    data: Data = None,
) -> None:
    """Every line as an event of OCSF 1.3 (Authentication, Account Change, API Activity), one JSON object a line."""
    from seamline.cli.version import seamline_version
    from seamline.kernel.audit.ocsf import event
    from seamline.kernel.audit.search import Follower, entries

    folder = connect.read_settings(app_folder, data).data_folder / "audit"
    query = query_of(since, until, kind)
    version = seamline_version()
    follower = Follower(folder, query) if follow else None
    found: Iterable[dict[str, Any]] = entries(folder, query)
    while True:
        for entry in found:
            sys.stdout.write(json.dumps(event(entry, version), ensure_ascii=False) + "\n")
        sys.stdout.flush()
        if follower is None:
            return
        time.sleep(_POLL_S)
        found = follower.more()


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline audit heads > heads.json
    """,
)
def heads(app_folder: App = None, data: Data = None) -> None:
    """How far each log has come and the key's fingerprint, as JSON: kept elsewhere, it finds what the folder cannot."""
    from seamline.kernel.audit.key import fingerprint, load_public
    from seamline.kernel.audit.verify import verify as verify_folder

    folder = connect.read_settings(app_folder, data).data_folder / "audit"
    public = load_public(folder)
    found = [report.head for report in verify_folder(folder) if report.head is not None]
    output.emit(
        {
            "key": fingerprint(public) if public else "",
            "heads": [{"log": each.log, "lines": each.number, "head": each.head} for each in found],
        }
    )


def query_of(
    since: str, until: str, kind: str = "", principal: str = "", action: str = "", decision: str = "", text: str = ""
) -> Query:
    from seamline.kernel.audit.search import Query

    return Query(
        since=moment(since), until=moment(until), kind=kind, principal=principal, action=action, decision=decision,
        text=text,
    )  # fmt: skip


def moment(given: str) -> str:
    """A time as the lines have it, from itself or from how long ago it was."""
    if not given:
        return ""
    return past(given).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def show(found: Iterable[dict[str, Any]], *, as_json: bool) -> None:
    for entry in found:
        if as_json:
            sys.stdout.write(json.dumps(entry, ensure_ascii=False) + "\n")
            continue
        words = (str(entry.get(name, "")) for name in ("principal", "action", "resource"))
        told = f"{entry.get('kind', '')}: {' '.join(words)}"
        user = f" for user {entry['user']}" if entry.get("user") and not entry.get("reason") else ""
        because = entry.get("reason") or (f"{entry['suppressed']} more" if "suppressed" in entry else "")
        line = f"{entry.get('time', '')}  {entry.get('decision', ''):<7}  {' '.join(told.split())}{user}"
        sys.stdout.write(output.harmless(f"{line}{f'  ({because})' if because else ''}") + "\n")
    sys.stdout.flush()


def running_heads(settings: Settings) -> list[Written]:
    """What the running supervisor holds in memory; nothing where none runs."""
    from seamline.run.errors import NotRunningError

    try:
        return _heads(connect.ask(settings, "audit-heads"))
    except NotRunningError:
        return []


def read_heads(path: Path) -> tuple[list[Written], str]:
    """The heads that were kept, and the key's fingerprint."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return _heads(found), str(found["key"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArgumentError(
            f"{str(path)!r} does not hold heads: {error}", "It is what `seamline audit heads` printed"
        ) from None


def _heads(found: Any) -> list[Written]:
    from seamline.kernel.audit import Written

    listed = cast("list[dict[str, Any]]", found["heads"])
    return [Written(str(each["log"]), int(each["lines"]), str(each["head"])) for each in listed]
