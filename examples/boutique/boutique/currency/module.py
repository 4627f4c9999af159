"""The inside of currency: one multiplication, one division, one rounding."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context

from boutique.currency import Currency, CurrencyUnknown
from boutique.currency.rates import PER_EURO, SUPPORTED
from boutique.money import Money, smallest_unit
from seamline import Module

module = Module("currency", provides=Currency)

# Amounts have at most about 15 digits and rates 6, so the product is exact and the quotient so long
# that it cannot fall on the wrong side of a half: the one rounding at the end is the only one.
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)


def convert(money: Money, to: str) -> Money:
    """``money`` in another currency by the table of rates, as it can be charged."""
    try:
        rate_from, rate_to = PER_EURO[money.currency], PER_EURO[to]
    except KeyError as unknown:
        raise CurrencyUnknown(currency=str(unknown.args[0])) from None
    value = _EXACT.divide(_EXACT.multiply(money.amount, rate_to), rate_from)
    return Money(to, value.quantize(smallest_unit(to), context=_EXACT))


@module.service
class CurrencyService(Currency):
    async def supported(self) -> tuple[str, ...]:
        return SUPPORTED

    async def convert(self, money: Money, to: str) -> Money:
        return convert(money, to)
