"""Ads: one line from a neighbour of the shop."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from dataclasses import dataclass

from seamline import Contract, readonly


@dataclass(frozen=True, slots=True)
class Ad:
    product_id: str
    text: str


class Ads(Contract):
    @readonly
    async def choose(self, categories: tuple[str, ...]) -> Ad:
        """An ad that suits the categories, or any; the same question has the same answer."""
        ...
