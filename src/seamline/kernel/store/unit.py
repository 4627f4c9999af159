"""A unit of work: everything a handler writes commits once, together with the platform's note that it was done.

The platform opens a unit around a handler whose effect must not happen twice (an event's, a call's with an
idempotency key, a saga's step). Inside, every ``transaction()`` and ``session()`` of that database is a part of one
transaction, which ends with the unit; a part that raises is undone alone. A unit does not cross a call: what the
handler calls has transactions of its own, in one process as in many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncTransaction

if TYPE_CHECKING:
    from seamline.kernel.store.access import Access

UNIT: ContextVar[Unit | None] = ContextVar("seamline_unit", default=None)


def _nowhere() -> object:
    return None


_scope: Callable[[], object] = _nowhere


def set_scope_source(source: Callable[[], object]) -> None:
    """Say what tells one call from another, so that a unit ends where a call begins."""
    global _scope  # noqa: PLW0603  # said once by whoever hosts modules
    _scope = source


class Unit:
    """``async with db.unit() as unit``: commits when the block ends, if anything was begun; an exception rolls back."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._scope = _scope()
        self._connection: AsyncConnection | None = None
        self._lock = asyncio.Lock()
        self._at_work: asyncio.Task[object] | None = None
        self._token: Token[Unit | None] | None = None

    def covers(self, access: Access) -> bool:
        """Whether work on ``access`` in the call under way belongs to this unit."""
        return access is self._access and _scope() is self._scope

    @property
    def begun(self) -> bool:
        return self._connection is not None

    async def connection(self) -> AsyncConnection:
        """The unit's one transaction, begun at the first asking."""
        if self._connection is None:
            self._connection = await self._access.enter()
        return self._connection

    @property
    def inside_part(self) -> bool:
        """Whether this task is inside of a part."""
        return self._at_work is not None and self._at_work is asyncio.current_task()

    async def enter_part(self) -> AsyncTransaction | None:
        """One ``transaction()`` block inside; parts of concurrent tasks wait for one another.

        None for what the unit begins with: a savepoint costs more than a statement, and nothing is there to be saved.
        """
        await self._lock.acquire()
        try:
            first = self._connection is None
            connection = await self.connection()
            part = None if first else await connection.begin_nested()
        except BaseException:
            self._lock.release()
            raise
        self._at_work = asyncio.current_task()
        return part

    async def leave_part(self, part: AsyncTransaction | None, *, keep: bool) -> None:
        try:
            if part is not None:
                await (part.commit() if keep else part.rollback())
            elif not keep and self._connection is not None:
                await self._connection.rollback()
        finally:
            self._at_work = None
            self._lock.release()

    async def __aenter__(self) -> Self:
        self._token = UNIT.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        UNIT.reset(self._token)
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await self._access.leave(connection, commit=error is None)


def unit_of(access: Access) -> Unit | None:
    """The unit that work on ``access`` belongs to now, if there is one."""
    unit = UNIT.get()
    return unit if unit is not None and unit.covers(access) else None
