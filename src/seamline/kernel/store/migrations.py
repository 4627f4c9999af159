"""A module's tables move with its code: Alembic revisions in ``<package>/migrations/versions/*.py``.

The revisions are ordinary Alembic files; no ``env.py`` and no ``alembic.ini`` stand beside them. Which of
them were applied is recorded in ``alembic_version`` inside the module's own file or schema. Everything that
is pending runs in one transaction that holds a lock, so that it is kept as a whole or not at all, and
several starters of a module come one after another and find the work done.

All of this runs in a thread, with a connection of its own: Alembic is synchronous and keeps its current
operation in a global.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import Connection, MetaData, NullPool, StaticPool, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from seamline.kernel.store.database import Database
from seamline.kernel.store.errors import (
    FolderError,
    MigrationFailedError,
    MigrationFilesError,
    MigrationPendingError,
    MigrationUnknownError,
    StoreError,
)
from seamline.kernel.store.postgresql import PostgresqlServer, reason
from seamline.kernel.store.revisions import only_head
from seamline.kernel.store.sqlite_file import connect

if TYPE_CHECKING:  # Alembic takes a sixth of a second to import, and a module without revisions needs none
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

_T = TypeVar("_T")

LOCK_WAIT_MS: Final = 60_000
OURS: Final = "seamline_"
"""Tables of this name's beginning belong to the platform; revisions leave them alone."""

_log = logging.getLogger("seamline.store")
_one_at_a_time = threading.Lock()  # alembic.op is a global

_TEMPLATE: Final = '''"""{message}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
{imports}
revision = {revision!r}
down_revision = {down_revision!r}
branch_labels = None
depends_on = None


def upgrade() -> None:
    {upgrade}


def downgrade() -> None:
    {downgrade}
'''


@dataclass(frozen=True, slots=True)
class Revision:
    id: str
    message: str


@dataclass(frozen=True, slots=True)
class Status:
    """Where a module's tables stand. ``pending`` is in the order in which it would be applied."""

    module: str
    current: str | None
    head: str | None
    pending: tuple[Revision, ...]


async def prepare(db: Database, folder: Path | None, *, development: bool = True) -> tuple[Revision, ...]:
    """Before a module starts: bring its tables up to its code, or refuse to start on older ones.

    Args:
        folder: ``<package>/migrations``; it need not exist.
        development: apply what is pending, and make tables that have no revisions yet.

    Raises:
        StoreError: the tables cannot serve this code.
    """
    if folder is not None and any((folder / "versions").glob("*.py")):
        if await _is_at_head(db, folder):
            return ()
        if development:
            return await upgrade(db, folder)
        pending = (await status(db, folder)).pending
        if pending:
            raise MigrationPendingError(
                f"{len(pending)} revision(s) are not applied, the first is {_named(pending[0])}",
                f"Run: seamline migrate --module {db.module}",
                place=db.module,
            )
    elif db.tables is not None and db.tables.tables:
        await asyncio.to_thread(_make_tables, db, db.tables, development=development)
    return ()


async def _is_at_head(db: Database, folder: Path) -> bool:
    head = only_head(folder)
    if head is None:
        return False
    try:
        async with db.read() as r:
            return (await r.execute(text("SELECT version_num FROM alembic_version"))).scalars().all() == [head]
    except DBAPIError:
        return False  # no revision was ever applied


async def upgrade(db: Database, folder: Path, to: str = "head") -> tuple[Revision, ...]:
    """Apply what is pending up to ``to``; all of it or nothing. Returns what was applied."""
    return await asyncio.to_thread(_move, db, folder, to, "upgrade")


async def downgrade(db: Database, folder: Path, to: str) -> tuple[Revision, ...]:
    """Take back down to ``to``: a revision's id, ``-1`` for one step, or ``base``. Returns what was taken back."""
    return await asyncio.to_thread(_move, db, folder, to, "downgrade")


async def stamp(db: Database, folder: Path, to: str = "head") -> None:
    """Record that the tables are at ``to`` without running anything."""

    def work(connection: Connection) -> None:
        script = _script(folder, db.module)
        _context(connection, db).stamp(script, to)

    await asyncio.to_thread(_locked, db, work)


async def status(db: Database, folder: Path) -> Status:
    """Where the tables stand. Makes nothing, not even the file."""

    def work(connection: Connection) -> Status:
        return _status(connection, _script(folder, db.module), db)

    if db.path is not None and not db.path.exists():
        return await asyncio.to_thread(_scratch, work)
    return await asyncio.to_thread(_locked, db, work)


async def revision(db: Database, folder: Path, message: str) -> Path | None:
    """Write the next revision: the difference between the revisions so far and the module's tables.

    With SQLite the revisions so far are run on a scratch database in memory; PostgreSQL's types differ too
    much for that, so there the module's own schema is compared, and must be up to date.

    Returns:
        The file, or None if there is no difference.
    """
    tables = db.tables
    if tables is None:
        raise MigrationFilesError(
            "the module names no tables", "Pass them: Module(..., tables=metadata)", place=db.module
        )

    (folder / "versions").mkdir(parents=True, exist_ok=True)

    def work(connection: Connection) -> Path | None:
        script = _script(folder, db.module)
        if db.path is not None:
            _run(connection, script, db, "head", "upgrade")
        elif pending := _status(connection, script, db).pending:
            raise MigrationPendingError(
                f"{_named(pending[0])} is not applied, so the difference cannot be told",
                f"Run: seamline migrate --module {db.module}",
                place=db.module,
            )
        return _write_difference(connection, script, db, tables, folder, message)

    if db.path is not None:
        return await asyncio.to_thread(_scratch, work)
    return await asyncio.to_thread(_locked, db, work)


def _named(revision: Revision) -> str:
    return f"{revision.id!r} ({revision.message})"


# -- the connection ------------------------------------------------------------------------------------------


def _locked(db: Database, work: Callable[[Connection], _T]) -> _T:
    """Run ``work`` in a transaction that no other starter of the module can be in at the same time."""
    with _one_at_a_time:
        if db.path is None:
            return asyncio.run(_locked_on_server(db, work))
        return _locked_in_file(db, db.path, work)


def _locked_in_file(db: Database, path: Path, work: Callable[[Connection], _T]) -> _T:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = connect(path, read_only=False)
    except (OSError, sqlite3.Error) as error:
        raise FolderError(
            f"the database file {str(path)!r} cannot be opened for writing ({error})",
            "Make the folder writable for this user, or name another as [app] data",
            place=db.module,
        ) from error
    engine = create_engine("sqlite://", creator=lambda: file, poolclass=StaticPool)
    try:
        # Rebuilding a table drops the old one, which must not take the rows of others along.
        file.execute("PRAGMA foreign_keys = OFF")
        file.execute(f"PRAGMA busy_timeout = {LOCK_WAIT_MS}")
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            result = work(connection)
            _check_foreign_keys(connection, db)
            connection.commit()
        return result
    finally:
        engine.dispose()
        file.close()


def _check_foreign_keys(connection: Connection, db: Database) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise MigrationFailedError(
            f"after the revisions a row of {broken[0]!r} refers to a row of {broken[2]!r} that is not there",
            "Move or delete such rows in the revision; nothing was changed",
            place=db.module,
        )


async def _locked_on_server(db: Database, work: Callable[[Connection], _T]) -> _T:
    server = PostgresqlServer(db.url, db.module, wait_s=LOCK_WAIT_MS / 1000, login=db.login)
    engine = create_async_engine(db.url, poolclass=NullPool, connect_args=server.as_module())
    try:
        await server.prepare()
        async with server.reachable(), engine.begin() as connection:
            await connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtext(:what))"), {"what": f"migrate {db.module}"}
            )
            return await connection.run_sync(work)
    finally:
        await engine.dispose()
        await server.close()


def _scratch(work: Callable[[Connection], _T]) -> _T:
    """Run ``work`` on an empty database in memory."""
    with _one_at_a_time:
        engine = create_engine("sqlite://", poolclass=StaticPool)
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("BEGIN")
                return work(connection)
        finally:
            engine.dispose()


# -- Alembic -------------------------------------------------------------------------------------------------


def _script(folder: Path, module: str) -> ScriptDirectory:
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    try:
        # Alembic only warns of a gap in the line, or of two revisions of one name.
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", UserWarning)
            script = ScriptDirectory(str(folder), version_locations=[str(folder / "versions")])
            heads = script.get_heads()
    except (CommandError, KeyError) as error:
        raise MigrationFilesError(str(error), _READ_FILES, place=module) from error
    except Exception as error:  # a revision is a program: importing it may raise anything
        raise MigrationFilesError(
            f"a revision in {str(folder / 'versions')!r} cannot be imported ({type(error).__name__}: {error})",
            _READ_FILES,
            place=module,
        ) from error
    for warning in warned:
        if str(warning.message).startswith("Revision "):
            raise MigrationFilesError(str(warning.message), _READ_FILES, place=module)
    if len(heads) > 1:
        raise MigrationFilesError(
            f"{' and '.join(map(repr, sorted(heads)))} both come last",
            "Let one follow the other: set its down_revision",
            place=module,
        )
    return script


_READ_FILES: Final = "Each revision file needs revision, down_revision, upgrade() and downgrade()"


def _context(connection: Connection, db: Database, **options: object) -> MigrationContext:
    from alembic.runtime.migration import MigrationContext

    return MigrationContext.configure(
        connection,
        opts={
            "target_metadata": db.tables,
            "render_as_batch": db.path is not None,
            "include_name": _is_the_modules,
            "compare_type": True,
            **options,
        },
    )


def _is_the_modules(name: str | None, kind: str, _parents: object) -> bool:
    return not (kind == "table" and (name or "").startswith(OURS))


def _status(connection: Connection, script: ScriptDirectory, db: Database) -> Status:
    current = next(iter(_context(connection, db).get_current_heads()), None)
    _known(script, current, db)
    head = script.get_current_head()
    newest_first = () if head is None else script.iterate_revisions(head, current or "base")
    return Status(db.module, current, head, tuple(_revision(item) for item in newest_first)[::-1])


def _known(script: ScriptDirectory, current: str | None, db: Database) -> None:
    from alembic.util import CommandError

    try:
        if current is not None:
            script.get_revision(current)
    except CommandError as error:
        raise MigrationUnknownError(
            f"the tables are at revision {current!r}, which this code does not have",
            "Start the newer code, or downgrade with it before going back to this one",
            place=db.module,
        ) from error


def _revision(item: Any) -> Revision:
    return Revision(item.revision, str(item.doc or "").rstrip("."))


def _move(db: Database, folder: Path, to: str, direction: str) -> tuple[Revision, ...]:
    def work(connection: Connection) -> tuple[Revision, ...]:
        return _run(connection, _script(folder, db.module), db, to, direction)

    moved = _locked(db, work)
    for revision in moved:
        _log.info("%s: %s %s", db.module, direction, _named(revision))
    return moved


def _run(
    connection: Connection, script: ScriptDirectory, db: Database, to: str, direction: str
) -> tuple[Revision, ...]:
    from alembic.operations import Operations
    from alembic.util import CommandError

    before = _status(connection, script, db)
    moved: list[Revision] = []
    begun: list[Revision] = []

    def steps(heads: Any, _context: object) -> Sequence[Any]:
        plan: Any = script._upgrade_revs if direction == "upgrade" else script._downgrade_revs  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001  # what alembic.command itself calls
        found = plan(to, heads or None)
        begun.extend(_revision(step.revision) for step in found)
        return found

    def applied(*, step: Any, **_: object) -> None:
        moved.append(_revision(next(iter(step.up_revisions))))

    context = _context(connection, db, fn=steps, on_version_apply=(applied,))
    try:
        with Operations.context(context):
            context.run_migrations()
    except CommandError as error:
        raise MigrationFilesError(str(error), "See: seamline migrate --status", place=db.module) from error
    except StoreError:
        raise
    except Exception as error:  # a revision may raise anything
        raise _failed(error, begun[len(moved)] if len(moved) < len(begun) else None, before, db) from error
    return tuple(moved)


def _failed(error: Exception, at: Revision | None, before: Status, db: Database) -> MigrationFailedError:
    said = reason(error) if isinstance(error, SQLAlchemyError) else str(error)
    remedy = "Correct the revision; nothing was changed"
    if before.current is None and "already exists" in said:
        remedy = (
            "The tables were made before there were revisions. If they are as the newest revision makes them, "
            f"run: seamline migrate --module {db.module} --stamp head"
        )
    what = f"revision {_named(at)}" if at else "a revision"
    return MigrationFailedError(
        f"{what} raised {type(error).__name__}: {said.splitlines()[0] if said else ''}", remedy, place=db.module
    )


def _write_difference(
    connection: Connection,
    script: ScriptDirectory,
    db: Database,
    tables: MetaData,
    folder: Path,
    message: str,
) -> Path | None:
    from alembic.autogenerate import produce_migrations, render_python_code
    from alembic.util import rev_id

    context = _context(connection, db)
    difference = produce_migrations(context, tables)
    up, down = difference.upgrade_ops, difference.downgrade_ops
    assert up is not None
    assert down is not None
    if up.is_empty():
        return None

    def rendered(operations: Any) -> str:
        return (
            render_python_code(operations, render_as_batch=db.path is not None, migration_context=context, imports=())
            .replace("    # ### commands auto generated by Alembic - please adjust! ###\n", "")
            .replace("\n    # ### end Alembic commands ###", "")
        )

    versions = folder / "versions"
    number = 1 + sum(1 for _ in script.walk_revisions())
    slug = re.sub(r"[^a-z0-9]+", "_", message.lower()).strip("_")[:40] or "revision"
    file = versions / f"{number:04d}_{slug}.py"
    source = _TEMPLATE.format(
        message=message.strip().rstrip(".").replace("\\", "").replace('"', "'") or "Revision",
        imports="from sqlalchemy.dialects import postgresql\n"
        if "postgresql." in rendered(up) + rendered(down)
        else "",
        revision=rev_id(),
        down_revision=script.get_current_head(),
        upgrade=rendered(up).strip(),
        downgrade=rendered(down).strip(),
    )
    file.write_text(source, encoding="utf-8")
    return file


def _make_tables(db: Database, tables: MetaData, *, development: bool) -> None:
    """A module with tables and no revisions yet."""

    def work(connection: Connection) -> None:
        missing = sorted(set(tables.tables) - set(inspect(connection).get_table_names()))
        if not missing:
            return
        remedy = f'Write the first revision: seamline migrate --module {db.module} --make "first tables"'
        if not development:
            raise MigrationPendingError(
                f"the table {missing[0]!r} is not there and no revision makes it", remedy, place=db.module
            )
        tables.create_all(connection)
        _log.warning("%s: made the tables %s without a revision. %s", db.module, ", ".join(missing), remedy)

    _locked(db, work)
