"""The form at the till: what was typed, what is wrong with it, and how to say so kindly."""

from __future__ import annotations

import re
from collections.abc import Mapping

from boutique.checkout import Purchase
from boutique.payments import Card, DeclineReason
from boutique.people import Address

_LENGTHS = {"email": 254, "name": 80, "street": 80, "postal_code": 12, "city": 80}
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_NUMBER = re.compile(r"[0-9]{1,4}")

# A demonstration should not ask anybody for their own address.
EXAMPLE: Mapping[str, str] = {
    "email": "ada@example.com",
    "name": "Ada Example",
    "street": "Lindenlaan 12",
    "postal_code": "9000",
    "city": "Ghent",
    "card_number": "4111 1111 1111 1111",
    "card_month": "12",
    "card_year": "2034",
    "card_code": "123",
}

_DECLINED = {
    DeclineReason.NUMBER: ("card_number", "This number is not a card's. Is a digit missing?"),
    DeclineReason.BRAND: ("card_number", "We take Visa and Mastercard only."),
    DeclineReason.EXPIRED: ("card_year", "This card has expired."),
    DeclineReason.SECURITY_CODE: ("card_code", "Three digits, from the back of the card."),
    DeclineReason.ISSUER: ("card_number", "Your bank does not let us charge this card."),
}


class CheckoutForm:
    """The fields as they were typed, and the errors found so far."""

    def __init__(self, typed: Mapping[str, str]) -> None:
        self._typed = typed
        self._errors: dict[str, str] = {}
        self.problem = ""
        self.advice = ""

    def value(self, name: str) -> str:
        """What to show in a field. The security code is never sent back once it was posted."""
        if name == "card_code" and self.problem:
            return ""
        return self._typed.get(name, "")

    def error(self, name: str) -> str:
        return self._errors.get(name, "")

    def declined(self, reason: DeclineReason) -> None:
        """Show that the card was refused, at the field that is to blame."""
        name, message = _DECLINED[reason]
        self._errors[name] = message
        self.problem = "The card was declined, and nothing was charged."
        self.advice = message

    def refused(self, problem: str, advice: str) -> None:
        self.problem, self.advice = problem, advice

    def purchase(self, shopper: str) -> Purchase | None:
        """What to order, or ``None`` with the errors filled in."""
        fields = {name: " ".join(self._typed.get(name, "").split()) for name in _LENGTHS}
        for name, value in fields.items():
            if not value:
                self._errors[name] = "Please fill this in."
            elif len(value) > _LENGTHS[name]:
                self._errors[name] = f"At most {_LENGTHS[name]} characters, please."
        if "email" not in self._errors and not _EMAIL.fullmatch(fields["email"]):
            self._errors["email"] = "This does not look like an email address."
        numbers = {name: self._number(name) for name in ("version", "card_month", "card_year")}
        for name in ("card_number", "card_code"):
            if not self._typed.get(name, "").strip():
                self._errors[name] = "Please fill this in."
        if self._errors:
            self.problem = "Some fields need another look."
            return None
        return Purchase(
            shopper=shopper,
            cart_version=numbers["version"],
            currency=self._typed.get("currency", ""),
            email=fields["email"],
            address=Address(
                name=fields["name"],
                street=fields["street"],
                postal_code=fields["postal_code"],
                city=fields["city"],
                country=self._typed.get("country", ""),
            ),
            card=Card(
                number=self._typed["card_number"],
                month=numbers["card_month"],
                year=numbers["card_year"],
                security_code=self._typed["card_code"].strip(),
            ),
        )

    def _number(self, name: str) -> int:
        typed = self._typed.get(name, "").strip()
        if name == "version":  # hidden: a broken one is a cart that changed
            return int(typed) if typed.isascii() and typed.isdigit() and len(typed) < 10 else -1
        if not _NUMBER.fullmatch(typed):
            self._errors[name] = "Digits, please."
            return 0
        return int(typed)
