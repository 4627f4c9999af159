"""The public side of a module that was taken over: it does what it is asked to, and may do nothing."""

from __future__ import annotations

from seamline import Contract


class Mischief(Contract):
    async def secret(self, name: str) -> str: ...

    async def tables(self) -> list[str]: ...

    async def ledger(self) -> str: ...
