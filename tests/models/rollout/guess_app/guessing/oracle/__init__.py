"""Guesses, and says by which version."""

from __future__ import annotations

from seamline import Contract, readonly


class Guess(Contract):
    @readonly
    async def guess(self, text: str, user: str) -> tuple[str, str]: ...


class Alone(Contract):
    @readonly
    async def double(self, number: int) -> int: ...
