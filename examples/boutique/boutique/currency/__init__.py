"""Currencies: which the shop takes, and exact conversion between them."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from boutique.money import Money
from seamline import Contract, Fault, readonly


class CurrencyUnknown(Fault):
    """The shop has no rate for this currency."""

    currency: str


class Currency(Contract):
    @readonly
    async def supported(self) -> tuple[str, ...]:
        """ISO 4217 codes, in alphabetical order."""
        ...

    @readonly
    async def convert(self, money: Money, to: str) -> Money:
        """The same value in another currency, rounded once, half to even, to its smallest unit.

        Raises ``CurrencyUnknown``.
        """
        ...
