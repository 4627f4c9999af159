"""Recommendations: what else a shopper may like."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from seamline import Contract, readonly


class Recommendations(Contract):
    @readonly
    async def others(self, product_ids: tuple[str, ...], limit: int = 4) -> tuple[str, ...]:
        """Ids of products that are not among ``product_ids``; the same question has the same answer."""
        ...
