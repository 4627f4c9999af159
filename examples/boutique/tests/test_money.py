"""Money is exact, and a conversion rounds once."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import pytest
from boutique.currency import CurrencyUnknown
from boutique.currency.module import convert
from boutique.currency.rates import PER_EURO, SUPPORTED
from boutique.money import WITHOUT_CENTS, Money, smallest_unit
from hypothesis import given
from hypothesis import strategies as st

CODES = st.sampled_from(SUPPORTED)
AMOUNTS = st.decimals(min_value=0, max_value=10**9, places=2)


@given(amount=AMOUNTS, source=CODES, target=CODES)
def test_a_conversion_is_the_exact_quotient_rounded_half_to_even(amount: Decimal, source: str, target: str):
    """Computed again with fractions, which never round, the result is the nearest amount that can be charged."""
    unit = Fraction(smallest_unit(target))
    exact = Fraction(amount) * Fraction(PER_EURO[target]) / Fraction(PER_EURO[source])
    assert Fraction(convert(Money(source, amount), target).amount) == round(exact / unit) * unit


@given(amount=AMOUNTS, code=CODES)
def test_a_conversion_into_the_same_currency_changes_nothing_that_could_be_charged(amount: Decimal, code: str):
    """It only rounds to the smallest unit."""
    expected = amount.quantize(smallest_unit(code), ROUND_HALF_EVEN)
    assert convert(Money(code, amount), code) == Money(code, expected)


@given(first=AMOUNTS, second=AMOUNTS, source=CODES, target=CODES)
def test_a_dearer_thing_never_becomes_the_cheaper_one(first: Decimal, second: Decimal, source: str, target: str):
    """Conversion keeps the order of amounts."""
    cheap, dear = sorted((first, second))
    assert convert(Money(source, cheap), target).amount <= convert(Money(source, dear), target).amount


@given(prices=st.lists(AMOUNTS, min_size=1, max_size=40), quantity=st.integers(1, 20))
def test_sums_and_multiples_are_exact(prices: list[Decimal], quantity: int):
    """Adding and multiplying lose nothing, however many amounts there are."""
    total = Money("EUR", Decimal(0))
    for price in prices:
        total += Money("EUR", price) * quantity
    assert Fraction(total.amount) == sum(map(Fraction, prices)) * quantity


def test_currencies_do_not_mix():
    """A sum of euros and yen is refused, not guessed."""
    with pytest.raises(ValueError, match="different currencies"):
        _ = Money("EUR", Decimal(1)) + Money("JPY", Decimal(1))


def test_yen_have_no_cents():
    """The smallest unit is the currency's own."""
    assert convert(Money("EUR", Decimal("12.34")), "JPY").amount == Decimal(2096)
    assert {code for code in SUPPORTED if smallest_unit(code) == 1} == WITHOUT_CENTS


@pytest.mark.parametrize(("money", "to"), [(Money("XXX", Decimal(1)), "EUR"), (Money("EUR", Decimal(1)), "eur")])
def test_an_unknown_currency_is_a_fault(money: Money, to: str):
    """The fault names the code that is not in the table."""
    with pytest.raises(CurrencyUnknown) as caught:
        convert(money, to)
    assert caught.value.currency in {"XXX", "eur"}
