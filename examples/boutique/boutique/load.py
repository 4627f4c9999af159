"""Shoppers for the load generator: the public mix of the Online Boutique.

For every 19 steps, one looks at the home page, two change the currency, ten look at a product, two put one
into the bag, three look at the bag and one orders. Each step checks what it sees.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

PRODUCTS = (
    "harbour-lamp", "enamel-kettle", "stoneware-mug", "pour-over-stand", "walnut-board", "linen-apron", "wool-throw",
    "quiet-clock", "beeswax-candle", "terracotta-pot", "watering-can", "field-notebook", "brass-pen", "canvas-tote",
    "round-sunglasses", "bicycle-bell",
)  # fmt: skip
CURRENCIES = ("EUR", "USD", "JPY", "CAD", "GBP", "TRY", "CHF")
QUANTITIES = (1, 2, 3, 4, 5, 10)
LOOKS_MAX = 100


class Answer(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...


class Choices(Protocol):
    def choice(self, options: tuple[Any, ...], /) -> Any: ...


class Shopper(Protocol):
    """What the load generator hands to a step: a browser with cookies, and dice of its own."""

    @property
    def random(self) -> Choices: ...
    async def get(self, path: str) -> Answer: ...
    async def post(self, path: str, form: dict[str, Any]) -> Answer: ...


def _shows(answer: Answer, *marks: bytes) -> None:
    if answer.status != 200:
        raise AssertionError(f"status {answer.status}")
    for mark in marks:
        if mark not in answer.body:
            raise AssertionError(f"the page does not show {mark.decode()!r}")


async def home(shopper: Shopper) -> None:
    _shows(await shopper.get("/"), b"The shelf", b"/product/bicycle-bell")


async def set_currency(shopper: Shopper) -> None:
    currency = shopper.random.choice(CURRENCIES)
    answer = await shopper.post("/currency", {"currency": currency, "back": "/"})
    _shows(answer, f"<option selected>{currency}</option>".encode())


async def browse_product(shopper: Shopper) -> None:
    product = shopper.random.choice(PRODUCTS)
    _shows(await shopper.get(f"/product/{product}"), f'value="{product}"'.encode(), b"Put in the bag")


async def add_to_cart(shopper: Shopper) -> None:
    product = shopper.random.choice(PRODUCTS)
    await shopper.get(f"/product/{product}")
    # A line holds a limited number of pieces; the page says so and shows the bag all the same.
    form = {"product_id": product, "quantity": shopper.random.choice(QUANTITIES)}
    _shows(await shopper.post("/cart", form), b"Your bag", f"/product/{product}".encode())


async def view_cart(shopper: Shopper) -> None:
    _shows(await shopper.get("/cart"), b"<h1>Your bag")


async def checkout(shopper: Shopper) -> None:
    await add_to_cart(shopper)
    till = await shopper.get("/checkout")
    _shows(till, b"The till")
    form = {
        "version": _hidden(till.body, b"version"),
        "currency": _hidden(till.body, b"currency"),
        "country": _hidden(till.body, b"country"),
        "email": "shopper@example.com",
        "name": "Sam Shopper",
        "street": "Harbour Street 1",
        "postal_code": "1000",
        "city": "Brussels",
        "card_number": "4111 1111 1111 1111",
        "card_month": "12",
        "card_year": "2034",
        "card_code": "123",
    }
    placed = await shopper.post("/checkout", form)
    for _ in range(LOOKS_MAX):  # a busy shop asks to look again, and so does a patient shopper
        if b"Your order is under way" not in placed.body:
            break
        await asyncio.sleep(0.1)
        placed = await shopper.get(_between(placed.body, b'<a href="/order/', b'"', keep=b"/order/"))
    # A very full bag is looked at by a human first, and has no parcel yet.
    parcel = () if b"We look at your order" in placed.body else (b"HS-",)
    _shows(placed, b"Thank you, Sam Shopper", *parcel)


def _hidden(body: bytes, name: bytes) -> str:
    """The value of a hidden field."""
    return _between(body, b'type="hidden" name="' + name + b'" value="', b'"')


def _between(body: bytes, before: bytes, after: bytes, keep: bytes = b"") -> str:
    return (keep + body.partition(before)[2].partition(after)[0]).decode()


scenario: list[tuple[int, str, Callable[[Shopper], Awaitable[None]]]] = [
    (1, "home", home),
    (2, "set currency", set_currency),
    (10, "browse product", browse_product),
    (2, "add to cart", add_to_cart),
    (3, "view cart", view_cart),
    (1, "checkout", checkout),
]
