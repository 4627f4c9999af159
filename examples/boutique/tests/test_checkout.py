"""Checkout against itself: the same attempt twice, interleaved at the worst moments."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from boutique.cart import Cart, CartContents, CartLine
from boutique.catalog.module import CatalogService
from boutique.checkout import CardDeclined, CartChanged, CartEmpty, DeclineReason, Order, OrderUnfinished, Purchase
from boutique.checkout.module import CheckoutService
from boutique.checkout.tables import metadata
from boutique.currency.module import CurrencyService
from boutique.emails import Emails, Letter
from boutique.money import Money
from boutique.payments import Card, CardBrand, CardToken, Charge, Payments
from boutique.people import Address
from boutique.shipping import Shipping

from seamline import Database, Unavailable
from seamline.kernel.clock import ManualClock
from seamline.kernel.store import sqlite_url

GOOD = Card("5555 5555 5555 4444", 12, 2034, "321")
BAD = replace(GOOD, year=2020)
PURCHASE = Purchase(
    "shopper-1", 1, "EUR", "ada@example.com", Address("Ada Example", "Lindenlaan 12", "9000", "Ghent", "BE"), GOOD
)
Interruption = Callable[[], Awaitable[object]]


class _Interrupted:
    """Something happens in the middle of the next call, once."""

    def __init__(self) -> None:
        self.meanwhile: Interruption | None = None

    async def interrupt(self) -> None:
        happening, self.meanwhile = self.meanwhile, None
        if happening is not None:
            await happening()


class _Cart(_Interrupted, Cart):
    def __init__(self) -> None:
        super().__init__()
        self.held = CartContents(1, (CartLine("wool-throw", 2),))

    async def contents(self, shopper: str) -> CartContents:
        await self.interrupt()
        return self.held

    async def put_back(self, shopper: str, lines: tuple[CartLine, ...]) -> None:
        raise NotImplementedError

    async def empty(self, shopper: str, version: int | None = None) -> None:
        if version == self.held.version:
            self.held = CartContents(self.held.version + 1, ())


class _Payments(_Interrupted, Payments):
    def __init__(self) -> None:
        super().__init__()
        self.charges: dict[str, Charge] = {}

    async def tokenise(self, card: Card) -> CardToken:
        return CardToken(CardBrand.MASTERCARD, card.number[-4:], card.month, card.year)

    async def charge(self, order_id: str, amount: Money, card: CardToken) -> Charge:
        await self.interrupt()
        if card.year == BAD.year:
            raise CardDeclined(reason=DeclineReason.EXPIRED)
        made = Charge(f"charge of {order_id}", order_id, amount, CardBrand.MASTERCARD, "4444")
        return self.charges.setdefault(order_id, made)


class _Emails(Emails):
    async def confirm_order(self, order: Order) -> None: ...

    async def letter(self, order_id: str) -> Letter:
        raise NotImplementedError


class Till:
    """A checkout service with its own database and neighbours that can be interrupted."""

    def __init__(self, db: Database, shipping: Shipping) -> None:
        self.cart, self.payments = _Cart(), _Payments()
        self.checkout = CheckoutService(
            db,
            ManualClock(),
            self.cart,
            CatalogService(),
            CurrencyService(),
            self.payments,
            shipping,
            _Emails(),
        )


@pytest.fixture
async def till(tmp_path: Path, shipping: Shipping) -> AsyncIterator[Till]:
    async with Database(sqlite_url(tmp_path, "checkout"), "checkout", metadata) as db:
        await db.run_sync(metadata.create_all)
        yield Till(db, shipping)


async def test_an_attempt_overtaken_by_itself_is_told_the_same_order(till: Till):
    """The cart is read after the twin has finished and emptied it; that is the twin's order, not a changed cart."""
    twin: list[Order] = []

    async def overtake() -> None:
        twin.append(await till.checkout.place("key", PURCHASE))

    till.cart.meanwhile = overtake
    assert await till.checkout.place("key", PURCHASE) == twin[0]
    assert len(till.payments.charges) == 1


async def test_an_attempt_is_kept_though_its_twins_card_was_declined(till: Till):
    """While the good card is charged the twin with the bad one is declined; the paid order must not be forgotten."""

    async def declined_twin() -> None:
        with pytest.raises(CardDeclined):
            await till.checkout.place("key", replace(PURCHASE, card=BAD))

    till.payments.meanwhile = declined_twin
    placed = await till.checkout.place("key", PURCHASE)
    assert await till.checkout.order(placed.id) == placed
    assert await till.checkout.place("key", PURCHASE) == placed


async def test_another_attempt_with_an_old_cart_is_refused(till: Till):
    """A different key is a different order, and the cart that it saw is gone."""
    await till.checkout.place("key", PURCHASE)
    with pytest.raises(CartChanged):
        await till.checkout.place("other", PURCHASE)
    with pytest.raises(CartEmpty):
        await till.checkout.place("other", replace(PURCHASE, cart_version=2))


async def test_an_interrupted_attempt_says_so_and_can_be_sent_again(till: Till):
    """What a neighbour's silence leaves behind is named, and the same key finishes it at the same price."""

    async def silence() -> None:
        raise Unavailable("payments is gone")

    till.payments.meanwhile = silence
    with pytest.raises(OrderUnfinished) as caught:
        await till.checkout.place("key", PURCHASE)
    placed = await till.checkout.place("key", PURCHASE)
    assert placed.id == caught.value.order_id
    assert placed.total == Money("EUR", Decimal("243.50"))
