"""``seamline migrate``: bring the modules' tables up to their code, and write revisions."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seamline.cli import connect, output
from seamline.cli.errors import ArgumentError
from seamline.cli.manual import ManualCommand
from seamline.cli.options import App, Data, Json

if TYPE_CHECKING:
    from seamline.kernel.store import Database
    from seamline.module import Module
    from seamline.run.application import Application

app = typer.Typer(add_completion=False)

OneModule = Annotated[str | None, typer.Option("--module", metavar="NAME", help="Only this module.")]
Make = Annotated[
    str | None,
    typer.Option("--make", metavar="MESSAGE", help="Write the next revision: what the tables have more than before."),
]
ShowStatus = Annotated[bool, typer.Option("--status", help="Only show what is applied and what is pending.")]
Downgrade = Annotated[
    str | None,
    typer.Option(
        "--downgrade", metavar="REVISION", help="Take back down to this revision, -1 or base. Needs --module."
    ),
]
Stamp = Annotated[
    str | None,
    typer.Option("--stamp", metavar="REVISION", help="Record that the tables are at this revision. Needs --module."),
]


@app.command(
    cls=ManualCommand,
    epilog="""
    seamline migrate                                      # apply what is pending, module by module
    seamline migrate --status                             # exit status 1 if anything is pending
    seamline migrate --module orders --make "add a note"  # write its next revision
    seamline migrate --module orders --downgrade -1       # take the last revision back
    """,
)
def migrate(
    app_folder: App = None,
    module: OneModule = None,
    make: Make = None,
    status: ShowStatus = False,
    downgrade: Downgrade = None,
    stamp: Stamp = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Bring the modules' databases to their newest schema; each module's as a whole or not at all.

    In development `seamline up` does this by itself; elsewhere run it before the new code starts.
    """
    if sum((make is not None, status, downgrade is not None, stamp is not None)) > 1:
        raise ArgumentError(
            "--make, --status, --downgrade and --stamp exclude each other",
            "Give one, or none to apply what is pending.",
        )
    if module is None and (downgrade is not None or stamp is not None):
        raise ArgumentError("--downgrade and --stamp change one module", "Name it: --module NAME.")
    from seamline.run.application import Application

    application = Application.load(connect.find_folder(app_folder))
    modules = _chosen(application, module)
    data_folder = data or application.settings.data_folder
    report = [
        asyncio.run(_one(each, _database(application, each, data_folder), make, status, downgrade, stamp))
        for each in modules
    ]
    if as_json:
        output.emit({"modules": report})
    else:
        for line in report or [{"module": "", "said": "no module has tables"}]:
            typer.echo(f"{line['module']}: {line['said']}" if line["module"] else line["said"])
    if status and any(line["pending"] for line in report):
        raise typer.Exit(output.STATUS_FOUND_WANTING)


def _chosen(application: Application, name: str | None) -> list[Module]:
    if name is not None and name not in application.modules:
        from difflib import get_close_matches

        near = get_close_matches(name, application.modules, n=1)
        raise ArgumentError(
            f"there is no module {name!r}",
            f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(application.modules)}.",
        )
    modules = [application.modules[name]] if name is not None else list(application.modules.values())
    with_tables = [each for each in modules if each.tables is not None]
    if name is not None and not with_tables:
        raise ArgumentError(f"the module {name!r} has no tables", "Pass them: Module(..., tables=metadata).")
    return with_tables


def _database(application: Application, module: Module, data: Path) -> Database:
    from seamline.kernel.store import Database, sqlite_url

    url = application.settings.data.url_of(module.name) or sqlite_url(data, module.name)
    return Database(url, module.name, module.tables)


async def _one(
    module: Module, db: Database, make: str | None, status: bool, downgrade: str | None, stamp: str | None
) -> dict[str, Any]:
    """Do what was asked with one module and tell it."""
    from seamline.kernel.store import migrations

    folder = module.folder / "migrations"
    told: dict[str, Any] = {"module": module.name, "applied": [], "taken_back": [], "file": None}
    if make is not None:
        file = await migrations.revision(db, folder, make)
        told["file"] = str(file) if file else None
        said = f"wrote {file}" if file else "its tables have not changed"
    elif not any((folder / "versions").glob("*.py")):
        return told | {
            "current": None, "head": None, "pending": [],
            "said": f'no revisions yet; seamline migrate --module {module.name} --make "first tables" writes one',
        }  # fmt: skip
    elif stamp is not None:
        await migrations.stamp(db, folder, stamp)
        said = f"recorded as being at {stamp}"
    elif downgrade is not None:
        moved = await migrations.downgrade(db, folder, downgrade)
        told["taken_back"] = [asdict(each) for each in moved]
        said = "took back " + (_listed(moved) or "nothing")
    elif status:
        said = ""
    else:
        moved = await migrations.upgrade(db, folder)
        told["applied"] = [asdict(each) for each in moved]
        said = f"applied {_listed(moved)}" if moved else "is up to date"
    now = await migrations.status(db, folder)
    if status:
        said = f"pending {_listed(now.pending)}" if now.pending else "is up to date"
    pending = [asdict(each) for each in now.pending]
    return told | {"current": now.current, "head": now.head, "pending": pending, "said": said}


def _listed(revisions: tuple[Any, ...]) -> str:
    return ", ".join(f"{each.id} ({each.message})" for each in revisions)
