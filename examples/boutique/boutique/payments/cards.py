"""What a card's number says about itself, without asking anybody."""

from __future__ import annotations

from datetime import datetime

from boutique.payments import Card, CardBrand, CardDeclined, CardToken, DeclineReason

_DIGITS_MIN, _DIGITS_MAX = 12, 19
# As payment providers have test cards: one that looks sound and is refused when it is charged.
_REFUSED_BY_ISSUER = "0002"
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)  # a doubled digit, its own digits added


def digits_of(number: str) -> str:
    """The number without the spaces and dashes that people put in."""
    return number.replace(" ", "").replace("-", "")


def passes_luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: the last digit makes the weighted sum a multiple of ten."""
    if not (digits.isascii() and digits.isdigit()):
        return False
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(_DOUBLED[value] for value in values[1::2])) % 10 == 0


def brand_of(digits: str) -> CardBrand | None:
    """The brand by the issuer's range and length, among those the shop accepts."""
    if digits.startswith("4") and len(digits) in {13, 16, 19}:
        return CardBrand.VISA
    if len(digits) == 16 and (51 <= int(digits[:2]) <= 55 or 2221 <= int(digits[:4]) <= 2720):
        return CardBrand.MASTERCARD
    return None


def check(card: Card, now: datetime) -> CardBrand:
    """The brand of a card that may be charged at ``now``. Raises ``CardDeclined``."""
    digits = digits_of(card.number)
    if not _DIGITS_MIN <= len(digits) <= _DIGITS_MAX or not passes_luhn(digits):
        raise CardDeclined(reason=DeclineReason.NUMBER)
    brand = brand_of(digits)
    if brand is None:
        raise CardDeclined(reason=DeclineReason.BRAND)
    if not 1 <= card.month <= 12 or _expired(card, now):
        raise CardDeclined(reason=DeclineReason.EXPIRED)
    code = card.security_code
    if not (code.isascii() and code.isdigit() and len(code) == 3):
        raise CardDeclined(reason=DeclineReason.SECURITY_CODE)
    return brand


def tokenise(card: Card, now: datetime) -> CardToken:
    """What may be kept of a card that may be charged at ``now``. Raises ``CardDeclined``."""
    return CardToken(check(card, now), digits_of(card.number)[-4:], card.month, card.year)


def authorise(card: CardToken, now: datetime) -> None:
    """Ask the issuer, who has the last word. Raises ``CardDeclined``."""
    if _expired(card, now):
        raise CardDeclined(reason=DeclineReason.EXPIRED)
    if card.last_four == _REFUSED_BY_ISSUER:
        raise CardDeclined(reason=DeclineReason.ISSUER)


def _expired(card: Card | CardToken, now: datetime) -> bool:
    return (card.year, card.month) < (now.year, now.month)
