"""Knows whole names, and who asks for them."""

from __future__ import annotations

from seamline import Contract, readonly


class Names(Contract):
    @readonly
    async def whole(self, name: str) -> str: ...
