"""``seamline doctor``: what this machine has, what it lacks, and what to do about it."""

from __future__ import annotations

import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import typer

from seamline.cli import connect, output
from seamline.cli.errors import NoApplicationError
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data, Json

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings

app = typer.Typer(add_completion=False)

Verdict = Literal["good", "note", "bad"]
MARKS: dict[Verdict, str] = {"good": "[green]ok[/]", "note": "[yellow]note[/]", "bad": "[bold red]bad[/]"}
FILES_MIN = 1024
MEMORY_MIN_BYTES = 512 << 20
DISK_MIN_BYTES = 1 << 30
SQLITE_MIN = (3, 35)


class Finding(NamedTuple):
    """One thing that was looked at. ``bad`` keeps Seamline from running, ``note`` is worth knowing."""

    what: str
    verdict: Verdict
    found: str
    remedy: str = ""


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline doctor          # this machine, and the application found upward from here
    seamline doctor --json   # for a bug report
    """,
)
def doctor(app_folder: App = None, data: Data = None, as_json: Json = False) -> None:
    """What this machine has, what it lacks, and what to do about it. Exit status 1 if something is bad."""
    findings = [*machine(), *tools()]
    try:
        settings = connect.read_settings(app_folder, data)
    except NoApplicationError:
        if app_folder is not None:
            raise
    else:
        findings += application(settings)
    if as_json:
        output.emit([finding._asdict() for finding in findings])
    else:
        rows = [[MARKS[f.verdict], f.what, f.found + (f"\n[dim]{f.remedy}[/]" if f.remedy else "")] for f in findings]
        output.console().print(output.table({"": "left", "looked at": "left", "found": "left"}, rows))
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(output.STATUS_FOUND_WANTING)


def machine() -> Iterator[Finding]:
    """The interpreter, its libraries, and the limits of the system."""
    import sqlite3
    import ssl

    import psutil

    yield judge(
        "Python", sys.version_info >= (3, 11), f"{platform.python_version()}", "Seamline needs Python 3.11 or newer"
    )
    yield judge(
        "TLS 1.3", ssl.HAS_TLSv1_3, ssl.OPENSSL_VERSION, "The mesh speaks TLS 1.3 only: use an OpenSSL that has it"
    )
    yield judge(
        "SQLite",
        sqlite3.sqlite_version_info >= SQLITE_MIN,
        sqlite3.sqlite_version,
        "Modules keep their data in SQLite 3.35 or newer",
    )
    for name, why in (("uvloop", "Calls are about half as fast without it"), ("cedarpy", "Policy needs it")):
        yield library(name, why)
    memory = psutil.virtual_memory()
    yield judge(
        "Memory",
        memory.available >= MEMORY_MIN_BYTES,
        f"{output.size(memory.available)} free of {output.size(memory.total)}, {psutil.cpu_count()} cores",
        "One process per module takes about 60 MB each; prefer the monolith here",
        "note",
    )
    yield open_files()


def open_files() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    remedy = f"Each connection takes one: `ulimit -n {min(hard, 65536)}` before `seamline up`"
    return judge("Open files", soft >= FILES_MIN, f"limit {soft:,}", remedy, "note")


def library(name: str, why: str) -> Finding:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Finding(name, "good", version(name))
    except PackageNotFoundError:
        return Finding(name, "note" if name == "uvloop" else "bad", "missing", why)


def tools() -> Iterator[Finding]:
    """Programs that only some tests and deployments use."""
    for program, what, why in (
        ("node", "Node", "The tests call a contract from Node where it is present; nothing else needs it"),
        ("postgres", "PostgreSQL", "Modules use SQLite unless seamline.toml names a PostgreSQL server"),
        ("chromium", "Chromium", "The tests look at the shop in it where it is present; nothing else needs it"),
    ):
        path = shutil.which(program) or next(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{program}")), None)
        yield Finding(what, "good", path) if path else Finding(what, "note", "not here", why)


def application(settings: Settings) -> Iterator[Finding]:
    """The application's own needs: its port, its data folder."""
    from seamline.kernel.settings import SettingsError

    yield Finding("Application", "good", f"{settings.app.name} with {len(settings.modules)} modules")
    try:
        folder = settings.prepare_data_folder()
    except SettingsError as error:
        yield Finding("Data folder", "bad", error.fact, error.remedy)
    else:
        free = shutil.disk_usage(folder).free
        yield judge(
            "Data folder",
            free >= DISK_MIN_BYTES,
            f"{folder}, {output.size(free)} free",
            "Make room: a full disk stops every module that writes",
            "note",
        )
    yield port(settings.gateway.listen)


def port(listen: str) -> Finding:
    """Whether the public port can be taken; a running application of ours holds it rightly."""
    host, _, number = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(number)))
        except OSError as error:
            remedy = "If it is not this application that runs, take another: `seamline up --port 8081`"
            return Finding("Public port", "note", f"{listen} is not free ({error.strerror})", remedy)
    return Finding("Public port", "good", f"{listen} is free")


def judge(what: str, good: bool, found: str, remedy: str, otherwise: Verdict = "bad") -> Finding:
    return Finding(what, "good", found) if good else Finding(what, otherwise, found, remedy)
