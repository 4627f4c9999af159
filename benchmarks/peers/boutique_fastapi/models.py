"""What the services say to each other."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

WITHOUT_CENTS = frozenset({"ISK", "JPY", "KRW"})
_CENT, _WHOLE = Decimal("0.01"), Decimal(1)


def smallest_unit(currency: str) -> Decimal:
    return _WHOLE if currency in WITHOUT_CENTS else _CENT


class Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Money(Model):
    currency: str
    amount: Decimal

    def __add__(self, other: Money) -> Money:
        if other.currency != self.currency:
            raise ValueError(f"{self} and {other} are in different currencies")
        return Money(currency=self.currency, amount=self.amount + other.amount)

    def __mul__(self, quantity: int) -> Money:
        return Money(currency=self.currency, amount=self.amount * quantity)

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}"

    def rounded(self) -> Money:
        unit = smallest_unit(self.currency)
        return Money(currency=self.currency, amount=self.amount.quantize(unit, ROUND_HALF_EVEN))


class Conversion(Model):
    money: Money
    to: str


class Product(Model):
    id: str
    name: str
    tagline: str
    description: str
    categories: tuple[str, ...]
    price: Money
    picture: str
    details: tuple[str, ...] = ()


class Ad(Model):
    product_id: str
    text: str


class CartLine(Model):
    product_id: str
    quantity: int


class CartContents(Model):
    version: int
    lines: tuple[CartLine, ...]

    @property
    def pieces(self) -> int:
        return sum(line.quantity for line in self.lines)


class Quantity(Model):
    quantity: int


class Address(Model):
    name: str
    street: str
    postal_code: str
    city: str
    country: str


class CardBrand(StrEnum):
    VISA = "visa"
    MASTERCARD = "mastercard"


class DeclineReason(StrEnum):
    NUMBER = "number"
    BRAND = "brand"
    EXPIRED = "expired"
    SECURITY_CODE = "security_code"


class Card(Model):
    number: str
    month: int
    year: int
    security_code: str


class ChargeRequest(Model):
    order_id: str
    amount: Money
    card: Card


class Charge(Model):
    id: str
    order_id: str
    amount: Money
    brand: CardBrand
    last_four: str


class Destination(Model):
    code: str
    name: str


class Quote(Model):
    cost: Money
    days_min: int
    days_max: int


class Shipment(Model):
    order_id: str
    address: Address
    pieces: int


class Stop(Model):
    day: int
    place: str
    note: str


class Purchase(Model):
    shopper: str
    cart_version: int
    currency: str
    email: str
    address: Address
    card: Card


class OrderLine(Model):
    product_id: str
    name: str
    quantity: int
    price: Money


class Order(Model):
    id: str
    lines: tuple[OrderLine, ...]
    shipping: Money
    total: Money
    email: str
    address: Address
    tracking_id: str = ""
    card_brand: CardBrand | None = None
    card_last_four: str = ""


class Letter(Model):
    recipient: str
    subject: str
    text: str
