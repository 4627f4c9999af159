"""Cards: numbers, brands, months."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from boutique.payments import Card, CardBrand, CardDeclined, DeclineReason
from boutique.payments.cards import authorise, brand_of, check, passes_luhn, tokenise
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 6, 30, 23, 59, tzinfo=UTC)
GOOD = "4111 1111 1111 1111"
FULL_WIDTH = {ord(digit): 0xFF10 + int(digit) for digit in "0123456789"}


def card(number: str = GOOD, month: int = 6, year: int = 2026, code: str = "123") -> Card:
    return Card(number, month, year, code)


def reason_of(wrong: Card, now: datetime = NOW) -> DeclineReason:
    with pytest.raises(CardDeclined) as caught:
        check(wrong, now)
    return caught.value.reason


def with_check_digit(body: str) -> str:
    return next(f"{body}{digit}" for digit in range(10) if passes_luhn(f"{body}{digit}"))


BODIES = st.text("0123456789", min_size=11, max_size=18)


@given(body=BODIES)
def test_every_number_has_exactly_one_check_digit(body: str):
    """Of the ten numbers that differ in the last digit alone, one is valid."""
    assert sum(passes_luhn(f"{body}{digit}") for digit in range(10)) == 1


@given(body=BODIES, data=st.data())
def test_one_wrong_digit_is_always_noticed(body: str, data: st.DataObject):
    """Luhn's promise: no single slip passes."""
    number = with_check_digit(body)
    place = data.draw(st.integers(0, len(number) - 1))
    wrong = data.draw(st.sampled_from([d for d in "0123456789" if d != number[place]]))
    assert not passes_luhn(number[:place] + wrong + number[place + 1 :])


@given(body=BODIES, data=st.data())
def test_swapped_neighbours_are_noticed_but_for_0_and_9(body: str, data: st.DataObject):
    """Luhn's other promise, with its known exception."""
    number = with_check_digit(body)
    place = data.draw(st.integers(0, len(number) - 2))
    first, second = number[place], number[place + 1]
    swapped = number[:place] + second + first + number[place + 2 :]
    assert passes_luhn(swapped) == (first == second or {first, second} == {"0", "9"})


@pytest.mark.parametrize(
    ("number", "brand"),
    [
        ("4111111111111111", CardBrand.VISA),
        ("4222222222222", CardBrand.VISA),
        ("5555555555554444", CardBrand.MASTERCARD),
        ("2221000000000009", CardBrand.MASTERCARD),
        ("2720990000000007", CardBrand.MASTERCARD),
        ("2721000000000004", None),
        ("2220990000000002", None),
        ("378282246310005", None),
        ("6011111111111117", None),
        ("41111111111111", None),
        ("5655555555555551", None),
    ],
)
def test_the_brand_follows_from_range_and_length(number: str, brand: CardBrand | None):
    """Visa begins with 4; Mastercard is 51 to 55 and 2221 to 2720, sixteen digits long."""
    assert brand_of(number) is brand


@pytest.mark.parametrize(
    "number",
    ["", "4111 1111 1111 1112", "4", "abcd", GOOD.translate(FULL_WIDTH), "4111-1111-1111-111x", "0" * 40],
)
def test_what_is_not_a_number_is_declined(number: str):
    """Wrong digits, letters, other scripts' digits, too short, too long."""
    assert reason_of(card(number)) is DeclineReason.NUMBER


def test_other_brands_are_declined():
    """A sound number of a brand that the shop does not take."""
    assert reason_of(card("3782 822463 10005")) is DeclineReason.BRAND


def test_a_card_is_good_until_the_last_moment_of_its_month():
    """June's card is good on the 30th at a minute to midnight, and expired a minute later."""
    assert check(card(month=6, year=2026), NOW) is CardBrand.VISA
    assert reason_of(card(month=6, year=2026), datetime(2026, 7, 1, tzinfo=UTC)) is DeclineReason.EXPIRED


@pytest.mark.parametrize(("month", "year"), [(5, 2026), (12, 2025), (0, 2030), (13, 2030), (-1, 2030)])
def test_past_and_impossible_months_are_expired(month: int, year: int):
    """A month that is over, or that no year has."""
    assert reason_of(card(month=month, year=year)) is DeclineReason.EXPIRED


@pytest.mark.parametrize("code", ["", "12", "1234", "12a", "123".translate(FULL_WIDTH)])
def test_the_security_code_is_three_digits(code: str):
    """Anything else is declined."""
    assert reason_of(card(code=code)) is DeclineReason.SECURITY_CODE


def test_a_card_does_not_show_its_number():
    """What is logged by accident gives nothing away."""
    assert "4111" not in repr(card())
    assert "123" not in repr(card())


def test_of_a_card_only_its_token_is_kept():
    """Neither the number nor the code is in it, and it can be charged."""
    token = tokenise(card(), NOW)
    assert (token.brand, token.last_four, token.month, token.year) == (CardBrand.VISA, "1111", 6, 2026)
    assert "4111" not in repr(token)
    authorise(token, NOW)


@pytest.mark.parametrize(
    ("number", "now", "reason"),
    [
        ("4000 0000 0000 0002", NOW, DeclineReason.ISSUER),
        (GOOD, NOW + timedelta(minutes=1), DeclineReason.EXPIRED),
    ],
)
def test_the_issuer_has_the_last_word(number: str, now: datetime, reason: DeclineReason):
    """A card that looked sound may be refused when it is charged, or have expired since."""
    token = tokenise(card(number), NOW)
    with pytest.raises(CardDeclined) as caught:
        authorise(token, now)
    assert caught.value.reason is reason
