"""What differs between the databases that a log is kept in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from seamline.events.log.interface import Damage, Ends
from seamline.events.log.rows import Kept, Outline, Row

Entry = tuple[Sequence[Row], Sequence[tuple[int, Row]]]
"""What one append writes: rows, and those that are delayed with when they are due."""


class Store(Protocol):
    """Rows by position. Every method is short work, or gives way to others while it is at it."""

    async def start(self, woken: Callable[[], None]) -> None:
        """``woken`` is called when another process is heard to have appended."""
        ...

    async def close(self) -> None: ...

    async def write(self, entries: Sequence[Entry]) -> None:
        """All of them in one commit."""
        ...

    async def write_with(self, connection: AsyncConnection, entry: Entry) -> None: ...

    def written(self) -> None:
        """What this process wrote is on disk: let others know, if the store can."""
        ...

    def spoilt_by_one(self, error: BaseException) -> bool:
        """Whether the group failed for a value in it, and nothing of it was kept."""
        ...

    async def news(self) -> bool:
        """Whether somebody may have written since the last time."""
        ...

    async def after(self, position: int, limit: int) -> list[Kept]: ...

    async def before(self, position: int, limit: int) -> list[Kept]:
        """The newest first."""
        ...

    async def outlines(self, position: int, limit: int) -> list[Outline]: ...

    async def ends(self) -> Ends: ...

    async def delete(self, positions: Sequence[int]) -> int: ...

    async def delete_older(self, first: int, last: int, time_ms: int) -> int:
        """Of the rows from ``first`` to ``last``, those of before ``time_ms``."""
        ...

    async def delayed(self) -> tuple[int, int]:
        """How many are not due yet, and when the next one is."""
        ...

    async def release(self, now_ms: int) -> int:
        """Move what is due to the end of the log."""
        ...

    async def set_aside(self, row: Kept, fact: str, now_ms: int) -> None: ...

    async def check_file(self) -> list[Damage]:
        """What the database itself can say about the soundness of the log."""
        ...

    async def salvage(self, now_ms: int) -> list[Damage]:
        """Where pages of the log are damaged: keep what can still be read, and say what is lost."""
        ...
