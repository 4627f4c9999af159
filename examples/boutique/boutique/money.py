"""Amounts of money: an exact decimal and its currency."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

# ISO 4217: most currencies have cents; these do not.
WITHOUT_CENTS = frozenset({"ISK", "JPY", "KRW"})

_CENT = Decimal("0.01")
_WHOLE = Decimal(1)


def smallest_unit(currency: str) -> Decimal:
    """The smallest amount in which ``currency`` is charged: a cent, or a whole yen."""
    return _WHOLE if currency in WITHOUT_CENTS else _CENT


@dataclass(frozen=True, slots=True)
class Money:
    """An exact amount. Sums stay exact; only a conversion rounds, once."""

    currency: str
    amount: Decimal

    def __add__(self, other: Money) -> Money:
        if other.currency != self.currency:
            raise ValueError(f"{self} and {other} are in different currencies; convert one of them first.")
        return Money(self.currency, self.amount + other.amount)

    def __mul__(self, quantity: int) -> Money:
        return Money(self.currency, self.amount * quantity)

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}"

    def rounded(self) -> Money:
        """The amount as it can be charged, half to even."""
        return Money(self.currency, self.amount.quantize(smallest_unit(self.currency), ROUND_HALF_EVEN))
