"""What was asked of it, and by whom."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

from seamline import Contract, readonly


@dataclasses.dataclass(frozen=True)
class Asked:
    """On whose behalf a call came."""

    user: str
    roles: list[str]
    session: str
    scopes: list[str] | None
    age: int
    module: str
    agent: str
    chain: list[str]


class Payments(Contract):
    @readonly
    async def who(self) -> Asked: ...

    async def pay(self, note: str) -> str: ...  # Remembers who paid

    async def undo(self, note: str) -> None: ...

    @readonly
    async def paid(self) -> dict[str, Asked]: ...

    @readonly
    def watch(self) -> AsyncIterator[Asked]: ...  # Tells once, and then waits for ever
