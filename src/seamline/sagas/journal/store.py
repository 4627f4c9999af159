"""What a store does for the journal: run statements in one transaction, durable when it returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.kernel.store import Database
from seamline.sagas.errors import LostSagasError
from seamline.sagas.journal.statements import Statement, Write

Rows = list[tuple[Any, ...]]


class Store(Protocol):
    """SQLite or PostgreSQL."""

    database: Database

    async def prepare(self) -> None:
        """Make what :meth:`write` needs beside the tables."""
        ...

    async def write(self, writes: Sequence[Write]) -> Sequence[str | BaseException | None]:
        """Many writes in one transaction. A start with a key gives the id of the saga that has it; a write whose
        worker has lost its place gives LostSagasError, and nothing of it is kept."""
        ...

    async def write_with(self, connection: AsyncConnection, write: Write) -> None:
        """One write in a transaction of the module. Raises LostSagasError."""
        ...

    async def run(self, statements: Sequence[Statement]) -> list[Rows]:
        """A few statements of any kind in one transaction, with what each returned."""
        ...

    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """One statement that only reads."""
        ...

    async def peek(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """As :meth:`read`, for what an index answers at once with a few rows."""
        ...

    def sql(self, text: str) -> str:
        """A statement in the store's own spelling."""
        ...


def lost(owner: str) -> LostSagasError:
    return LostSagasError(
        f"this process ({owner}) was not heard of for too long, and another has taken its sagas over",
        "Nothing is lost: they go on there. Look for what held this process up",
    )
