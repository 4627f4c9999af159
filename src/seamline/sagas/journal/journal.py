"""Reading the journal, and the statements that are not on the hot path: workers, claims, messages, lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.kernel.store import Combiner
from seamline.sagas.errors import NewerJournalError, SagaEndedError, UnknownSagaError
from seamline.sagas.journal.records import FORMAT, Head, Message, checksum, damaged
from seamline.sagas.journal.statements import COLUMNS, INTERRUPTED, POST, POST_BODY, Write
from seamline.sagas.journal.store import Store
from seamline.sagas.journal.tables import TABLES

CLAIM_MAX: Final = 256
READ_MAX: Final = 500


class Journal:
    """The journal of one module's sagas."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.combiner: Combiner[Write, str | None] = Combiner(store.write)

    async def start(self) -> None:
        """Make the tables where they are absent. Raises NewerJournalError, and touches nothing."""
        if not await self._tables_exist():
            await self.store.database.ensure(TABLES)
            await self.store.run(
                [("INSERT INTO seamline_saga_format (format) VALUES (?) ON CONFLICT DO NOTHING", (FORMAT,))]
            )
        await self.check_format()
        await self._add_what_is_new()
        await self.store.prepare()

    async def _tables_exist(self) -> bool:
        if self.store.database.path is not None:
            sql = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN (?, ?)"
        else:
            sql = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename IN (?, ?)"
        return (await self.store.read(sql, ("seamline_saga_format", "seamline_saga_workers")))[0][0] == 2

    async def _add_what_is_new(self) -> None:
        """A column that releases before did not have; theirs go on without it."""
        if self.store.database.path is not None:
            columns = "SELECT name FROM pragma_table_info('seamline_sagas')"
            add = "ALTER TABLE seamline_sagas ADD COLUMN subject TEXT NOT NULL DEFAULT ''"
        else:
            columns = (
                "SELECT column_name FROM information_schema.columns "
                "WHERE table_schema = current_schema() AND table_name = 'seamline_sagas'"
            )
            add = "ALTER TABLE seamline_sagas ADD COLUMN IF NOT EXISTS subject TEXT NOT NULL DEFAULT ''"
        if ("subject",) in [tuple(row) for row in await self.store.read(columns)]:
            return
        try:
            await self.store.run([(add, ())])
        except Exception:
            if ("subject",) not in [tuple(row) for row in await self.store.read(columns)]:  # another process was first
                raise

    async def check_format(self) -> None:
        """Raises NewerJournalError where a newer release has written since."""
        found = (await self.store.peek("SELECT max(format) FROM seamline_saga_format"))[0][0]
        if found is not None and found > FORMAT:
            raise NewerJournalError(
                f"the journal of sagas has format {found}; this release of Seamline reads up to {FORMAT}",
                "Start the newer release again, or restore the copy of the database from before it",
                place=self.store.database.module,
            )

    async def close(self) -> None:
        await self.combiner.close()

    # Workers.

    async def register(self, owner: str) -> None:
        await self.store.run(
            [("INSERT INTO seamline_saga_workers (owner, beat) VALUES (?, 0) ON CONFLICT DO NOTHING", (owner,))]
        )

    async def beat(self, owner: str) -> bool:
        """Say that ``owner`` is alive. False when it has lost its place."""
        rows = await self.store.run(
            [("UPDATE seamline_saga_workers SET beat = beat + 1 WHERE owner = ? RETURNING beat", (owner,))]
        )
        return bool(rows[0])

    async def workers(self) -> dict[str, int]:
        return {row[0]: row[1] for row in await self.store.peek("SELECT owner, beat FROM seamline_saga_workers")}

    async def take_over(self, owner: str, beat: int | None = None) -> int:
        """Take a worker's place away, unless it was heard of since ``beat``, and set its sagas free; how many."""
        lost = "DELETE FROM seamline_saga_workers WHERE owner = ? AND (CAST(? AS BIGINT) IS NULL OR beat = ?)"
        free = (
            f"UPDATE seamline_sagas SET owner = NULL, due_ms = {INTERRUPTED} WHERE owner = ? AND ended_ms = 0 "  # noqa: S608  # a number of ours
            "AND NOT EXISTS (SELECT 1 FROM seamline_saga_workers WHERE owner = ?) RETURNING id"
        )
        return len((await self.store.run([(lost, (owner, beat, beat)), (free, (owner, owner))]))[1])

    # Sagas.

    async def claim(self, owner: str, types: dict[str, int], now_ms: int, limit: int) -> list[Head]:
        """Take sagas that are due and of a type and version that this process knows."""
        if not types or limit <= 0:
            return []
        known = " OR ".join("(type = ? AND version <= ?)" for _ in types)
        lock = " FOR UPDATE SKIP LOCKED" if self.store.database.path is None else ""
        sql = (
            f"UPDATE seamline_sagas SET owner = ? WHERE id IN (SELECT id FROM seamline_sagas WHERE ended_ms = 0 "  # noqa: S608  # column names only
            f"AND owner IS NULL AND due_ms <= ? AND ({known}) ORDER BY due_ms LIMIT ?{lock}) "
            f"AND owner IS NULL AND EXISTS (SELECT 1 FROM seamline_saga_workers WHERE owner = ?) RETURNING {COLUMNS}"
        )
        pairs = [value for pair in types.items() for value in pair]
        rows = await self.store.run([(sql, (owner, now_ms, *pairs, min(limit, CLAIM_MAX), owner))])
        return [Head(*row) for row in rows[0]]

    async def claim_one(self, owner: str, saga: str) -> Head | None:
        sql = (
            f"UPDATE seamline_sagas SET owner = ? WHERE id = ? AND ended_ms = 0 AND owner IS NULL "  # noqa: S608  # column names only
            f"AND EXISTS (SELECT 1 FROM seamline_saga_workers WHERE owner = ?) RETURNING {COLUMNS}"
        )
        rows = (await self.store.run([(sql, (owner, saga, owner))]))[0]
        return Head(*rows[0]) if rows else None

    async def next_due(self) -> int | None:
        sql = (
            "SELECT due_ms FROM seamline_sagas WHERE ended_ms = 0 AND owner IS NULL AND due_ms IS NOT NULL "
            "ORDER BY due_ms LIMIT 1"
        )
        rows = await self.store.peek(sql)
        return rows[0][0] if rows else None

    async def head(self, saga: str) -> Head:
        """Raises UnknownSagaError."""
        rows = await self.store.read(f"SELECT {COLUMNS} FROM seamline_sagas WHERE id = ?", (saga,))  # noqa: S608
        if not rows:
            raise unknown(saga)
        return Head(*rows[0])

    async def ended(self, sagas: Sequence[str]) -> list[tuple[str, str, str]]:
        """Of these, the ones that have ended: id, status and result."""
        found: list[tuple[str, str, str]] = []
        for begin in range(0, len(sagas), READ_MAX):
            part = sagas[begin : begin + READ_MAX]
            marks = ", ".join("?" for _ in part)
            sql = f"SELECT id, status, result FROM seamline_sagas WHERE ended_ms > 0 AND id IN ({marks})"  # noqa: S608
            found += [(row[0], row[1], row[2]) for row in await self.store.read(sql, part)]
        return found

    async def entries(self, sagas: Sequence[str]) -> dict[str, list[tuple[int, str, int]]]:
        """The journals of some sagas: number, text and checksum of each entry, in order."""
        found: dict[str, list[tuple[int, str, int]]] = {saga: [] for saga in sagas}
        for saga, seq, text, crc in await self._of_sagas("seq, entry, crc", "seamline_saga_journal", "seq", sagas):
            found[saga].append((seq, text, crc))
        return found

    async def has_entry(self, saga: str, seq: int) -> bool:
        sql = "SELECT 1 FROM seamline_saga_journal WHERE saga = ? AND seq = ?"
        return bool(await self.store.read(sql, (saga, seq)))

    async def messages(self, sagas: Sequence[str]) -> dict[str, list[Message]]:
        found: dict[str, list[Message]] = {saga: [] for saga in sagas}
        columns = "n, kind, name, body, time_ms"
        for saga, *rest in await self._of_sagas(columns, "seamline_saga_messages", "n", sagas):
            found[saga].append(Message(*rest))
        return found

    async def _of_sagas(self, columns: str, table: str, order: str, sagas: Sequence[str]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for begin in range(0, len(sagas), READ_MAX):
            part = sagas[begin : begin + READ_MAX]
            marks = ", ".join("?" for _ in part)
            sql = f"SELECT saga, {columns} FROM {table} WHERE saga IN ({marks}) ORDER BY saga, {order}"  # noqa: S608
            rows += await self.store.read(sql, part)
        return rows

    async def news(self, owner: str) -> dict[str, int]:
        """How many messages the sagas of a worker were ever sent, of those that were sent any."""
        sql = "SELECT id, messages FROM seamline_sagas WHERE ended_ms = 0 AND owner = ? AND messages > 0"
        return {row[0]: row[1] for row in await self.store.peek(sql, (owner,))}

    # Messages.

    async def post(self, saga: str, kind: str, name: str, body: str, now_ms: int) -> int:
        """Send a message; durable when its number is given. Raises UnknownSagaError or SagaEndedError."""
        connection = await self.store.database.current()
        if connection is not None:
            return await self.post_with(connection, saga, kind, name, body, now_ms)
        async with self.store.database.transaction() as own:
            return await self.post_with(own, saga, kind, name, body, now_ms)

    async def post_with(
        self,
        connection: AsyncConnection,
        saga: str,
        kind: str,
        name: str,
        body: str,
        now_ms: int,
        *,
        must: bool = True,
    ) -> int:
        """As :meth:`post`, in a transaction. Nothing happens to a saga that has ended unless it ``must`` be told."""
        found = (await connection.exec_driver_sql(self.store.sql(POST), (saga,))).first()
        if found is None and not must:
            return 0
        if found is None:
            sql = self.store.sql("SELECT status FROM seamline_sagas WHERE id = ?")
            row = (await connection.exec_driver_sql(sql, (saga,))).first()
            if row is None:
                raise unknown(saga)
            raise SagaEndedError(f"saga {saga!r} has ended ({row[0]})", "Only sagas that go on can be told something")
        number: int = found[0]
        await connection.exec_driver_sql(self.store.sql(POST_BODY), (saga, number, kind, name, body, now_ms))
        return number

    # Cleaning up.

    async def forget(self, before_ms: int, limit: int = 200) -> int:
        """Delete what ended before ``before_ms``, a part at a time; how many sagas went."""
        sql = "SELECT id FROM seamline_sagas WHERE ended_ms > 0 AND ended_ms < ? ORDER BY id LIMIT ?"
        ids = [row[0] for row in await self.store.read(sql, (before_ms, limit))]
        if ids:
            marks = ", ".join("?" for _ in ids)
            await self.store.run(
                [
                    (f"DELETE FROM {table} WHERE {column} IN ({marks})", tuple(ids))  # noqa: S608
                    for table, column in (
                        ("seamline_saga_journal", "saga"),
                        ("seamline_saga_messages", "saga"),
                        ("seamline_sagas", "id"),
                    )
                ]
            )
        return len(ids)


def unknown(saga: str) -> UnknownSagaError:
    return UnknownSagaError(f"there is no saga {saga!r} in this module", "`seamline sagas list` shows what there is")


def check_input(head: Head) -> bytes:
    """The saga's input as bytes. Raises DamagedJournalError."""
    data = head.input.encode()
    if checksum(data) != head.crc:
        raise damaged(head.id, "its input does not have the checksum it was written with")
    return data
