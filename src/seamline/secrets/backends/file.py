"""The sealed store: a SQLite file that holds nothing in the clear but names, times and who wrote.

Each version has a data key of its own (AES-256-GCM). What a ciphertext is bound to (application, name, version) and
what its wrapped key is bound to stand in the additional data, so that a row moved to another place does not open.
A version whose time is over loses ciphertext and key; SQLite overwrites what it deletes (``secure_delete``).
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from seamline.secrets.errors import RotationError, SecretsError, UnknownSecretError
from seamline.secrets.interface import SecretFacts, VersionFacts
from seamline.secrets.keys import KEY_BYTES, MasterKey, check_mode, seal, unseal
from seamline.secrets.secret import Secret

FILE_NAME: Final = "secrets.sqlite3"
_FORMAT: Final = 1
_BUSY_S: Final = 10.0
_Row = tuple[str, int, int, int, str, bytes, bytes | None]
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS versions (
    name TEXT NOT NULL, version INTEGER NOT NULL, made_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL,
    by TEXT NOT NULL, key_id TEXT NOT NULL, wrapped BLOB, sealed BLOB,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;
"""


class FileBackend:
    """Values sealed in ``<folder>/secrets.sqlite3``. Several processes may have it open.

    Args:
        folder: made, for its owner only, where it is absent.
        app: the application's name; its secrets open in no other application's store.
        open_master: gives the master key; its argument says whether a new one may be made, since nothing is sealed.
    """

    local = True
    label = "file"

    def __init__(self, folder: Path, app: str, open_master: Callable[[bool], MasterKey]) -> None:
        self._app = app
        self._lock = threading.Lock()
        self.path = folder / FILE_NAME
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        check_mode(self.path)
        self._connection = sqlite3.connect(
            self.path, timeout=_BUSY_S, check_same_thread=False, isolation_level=None, cached_statements=16
        )
        try:
            for pragma in ("journal_mode = DELETE", "synchronous = EXTRA", "secure_delete = ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(_TABLES)
            (sealed,) = self._connection.execute("SELECT count(*) FROM versions WHERE sealed NOTNULL").fetchone()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise SecretsError(
                f"the store of secrets cannot be used ({error})", "Restore the last copy.", place=str(self.path)
            ) from error
        try:
            self.master = open_master(not sealed)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    # Read.

    def read(self, name: str, version: str, now_ms: int) -> Secret:
        if version:
            number = int(version) if version.isdigit() else -1
            rows = self._rows("name = ? AND version = ?", name, number)
        else:
            rows = self._rows("name = ? AND until_ms = 0", name)
        if not rows or not _is_valid(rows[0], now_ms):
            which = f"version {version} of the secret {name!r}" if version else f"secret {name!r}"
            raise UnknownSecretError(
                f"there is no {which}", f"`seamline secrets list` tells; `seamline secrets set {name}` writes one."
            )
        return self._opened(rows[0])

    def valid(self, name: str, now_ms: int) -> list[Secret]:
        rows = self._rows("name = ? AND sealed NOTNULL ORDER BY version DESC", name)
        return [self._opened(row) for row in rows if _is_valid(row, now_ms)]

    def _rows(self, where: str, *values: object) -> list[_Row]:
        with self._lock:
            return self._connection.execute(
                f"SELECT name, version, made_ms, until_ms, key_id, wrapped, sealed FROM versions WHERE {where}",  # noqa: S608
                values,
            ).fetchall()

    def _opened(self, row: _Row) -> Secret:
        name, version, made_ms, until_ms, key_id, wrapped, sealed = row
        assert sealed is not None
        context = self._context(name, version)
        value = unseal(self.master.unwrap(key_id, wrapped, b"key:" + context), sealed, context)
        return Secret(name, str(version), value, made_ms=made_ms, until_ms=until_ms)

    def _context(self, name: str, version: int) -> bytes:
        return json.dumps([_FORMAT, self._app, name, version]).encode()

    def facts(self, now_ms: int) -> list[SecretFacts]:
        with self._lock:
            rows = self._connection.execute(
                "SELECT name, version, made_ms, until_ms, by, sealed IS NULL FROM versions ORDER BY name, version DESC"
            ).fetchall()
        found: dict[str, list[VersionFacts]] = {}
        for name, version, made_ms, until_ms, by, gone in rows:
            over = bool(gone) or 0 < until_ms <= now_ms
            found.setdefault(name, []).append(VersionFacts(str(version), made_ms, until_ms, by, over))
        return [SecretFacts(name, tuple(versions)) for name, versions in found.items()]

    # Write.

    def write(self, name: str, value: bytes, *, after: str | None, until_ms: int, now_ms: int, by: str) -> str:
        with self._transaction() as connection:
            (last,) = connection.execute("SELECT max(version) FROM versions WHERE name = ?", (name,)).fetchone()
            (newest,) = connection.execute(
                "SELECT max(version) FROM versions WHERE name = ? AND until_ms = 0", (name,)
            ).fetchone()
            if after is not None and after != str(newest or ""):
                raise RotationError(
                    f"the secret {name!r} is at version {newest}, no longer at {after}", "Somebody was faster."
                )
            number = (last or 0) + 1
            context = self._context(name, number)
            data_key = os.urandom(KEY_BYTES)
            key_id, wrapped = self.master.wrap(data_key, b"key:" + context)
            connection.execute(
                "UPDATE versions SET until_ms = ? WHERE name = ? AND until_ms = 0", (max(until_ms, 1), name)
            )
            connection.execute(
                "INSERT INTO versions VALUES (?, ?, ?, 0, ?, ?, ?, ?)",
                (name, number, now_ms, by, key_id, wrapped, seal(data_key, value, context)),
            )
        return str(number)

    def delete(self, name: str, now_ms: int) -> None:
        with self._transaction() as connection:
            done = connection.execute(
                "UPDATE versions SET wrapped = NULL, sealed = NULL, "
                "until_ms = iif(until_ms BETWEEN 1 AND ?2, until_ms, ?2) WHERE name = ?1 AND sealed NOTNULL",
                (name, now_ms),
            )
            if not done.rowcount:
                raise UnknownSecretError(f"there is no secret {name!r}", "`seamline secrets list` tells.")

    def destroy_ended(self, now_ms: int) -> int:
        """Destroy the versions whose time is over; how many."""
        with self._transaction() as connection:
            done = connection.execute(
                "UPDATE versions SET wrapped = NULL, sealed = NULL WHERE sealed NOTNULL AND until_ms BETWEEN 1 AND ?",
                (now_ms,),
            )
        return done.rowcount

    def rotate_master(self) -> int:
        """Wrap every data key with a new master key, while others read; how many. Broken off, it is begun again."""
        with self._transaction() as connection:
            # Under the lock: whoever writes meanwhile, in any process, comes after and finds the new key.
            self.master.begin_rotation()
            newest = self.master.newest
            rows = connection.execute(
                "SELECT name, version, key_id, wrapped FROM versions WHERE sealed NOTNULL AND key_id <> ?", (newest,)
            ).fetchall()
            for name, version, key_id, wrapped in rows:
                context = b"key:" + self._context(name, version)
                fresh_id, fresh = self.master.wrap(self.master.unwrap(key_id, wrapped, context), context)
                connection.execute(
                    "UPDATE versions SET key_id = ?, wrapped = ? WHERE name = ? AND version = ?",
                    (fresh_id, fresh, name, version),
                )
        with self._transaction() as connection:
            (older,) = connection.execute(
                "SELECT count(*) FROM versions WHERE sealed NOTNULL AND key_id <> ?", (newest,)
            ).fetchone()
            if not older:
                self.master.finish_rotation()
        return len(rows)


def _is_valid(row: _Row, now_ms: int) -> bool:
    until_ms, sealed = row[3], row[6]
    return sealed is not None and (until_ms == 0 or until_ms > now_ms)
