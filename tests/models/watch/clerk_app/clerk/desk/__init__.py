"""Decides by how risky something is."""

from __future__ import annotations

from dataclasses import dataclass

from seamline import Contract, idempotent, readonly
from seamline.models.chat import Chat


@dataclass(frozen=True, slots=True)
class Risky:
    score: float
    version: str


class Risk(Contract):
    @readonly
    async def risk(self, who: str, amount: float, country: str) -> Risky: ...


class Talk(Chat):
    """Speaks."""


class Desk(Contract):
    @idempotent
    async def decide(self, case: str, who: str, amount: float, country: str) -> str: ...

    async def agree(self, who: str) -> None: ...

    async def withdraw(self, who: str) -> int: ...

    async def rate(self, version: str, good: float) -> None: ...
