"""Checkout against itself: the same attempt twice, interleaved at the worst moments."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal

import pytest
from boutique.cart import Cart, CartContents, CartLine
from boutique.checkout import CardDeclined, CartChanged, CartEmpty, Checkout, Order, OrderStatus, Purchase
from boutique.money import Money
from boutique.payments import Card, CardBrand, CardToken, Charge, DeclineReason, Payments
from boutique.people import Address

from seamline.testing.app import TopologyApp

pytestmark = pytest.mark.seamline(topologies=["local"], fresh=True)
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

    async def add(self, shopper: str, product_id: str, quantity: int) -> CartContents:
        raise NotImplementedError

    async def set_quantity(self, shopper: str, product_id: str, quantity: int) -> CartContents:
        raise NotImplementedError

    async def put_back(self, shopper: str, version: int, lines: tuple[CartLine, ...]) -> None:
        raise NotImplementedError

    async def empty(self, shopper: str, version: int | None = None) -> int:
        if version != self.held.version:
            return 0
        self.held = CartContents(self.held.version + 1, ())
        return self.held.version


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

    async def charge_of(self, order_id: str) -> Charge:
        return self.charges[order_id]

    async def refund(self, charge_id: str) -> None:
        raise NotImplementedError


async def test_an_attempt_overtaken_by_itself_is_told_the_same_order(topology_app: TopologyApp):
    """The cart is read after the twin has finished and emptied it; that is the twin's order, not a changed cart."""
    checkout, twin = topology_app.stub(Checkout), list[Order]()
    with topology_app.fake(Cart, _Cart()) as cart, topology_app.fake(Payments, _Payments()) as payments:

        async def overtake() -> None:
            twin.append(await checkout.place("key", PURCHASE))

        cart.meanwhile = overtake
        assert await checkout.place("key", PURCHASE) == twin[0]
        assert len(payments.charges) == 1


@pytest.mark.parametrize(("first", "second"), [(GOOD, BAD), (BAD, GOOD)])
async def test_twins_with_two_cards_are_one_attempt(topology_app: TopologyApp, first: Card, second: Card):
    """While one card is charged the same attempt comes with another: both hear what became of the first."""
    checkout = topology_app.stub(Checkout)

    async def outcome(card: Card) -> Order | CardDeclined:
        try:
            return await checkout.place("key", replace(PURCHASE, card=card))
        except CardDeclined as declined:
            return declined

    with topology_app.fake(Cart, _Cart()), topology_app.fake(Payments, _Payments()) as payments:
        begun = list[Awaitable[Order | CardDeclined]]()

        async def twin() -> None:
            begun.append(outcome(second))

        payments.meanwhile = twin
        told = await outcome(first)
        assert isinstance(told, Order) == (first == GOOD)
        # A declined attempt is over, and the next begins anew; a placed one is the order for ever.
        again = await begun[0]
        assert isinstance(again, Order)
        if first == GOOD:
            assert again == told
        assert await checkout.order(again.id) == again
        assert again.status is OrderStatus.PLACED
        assert len(payments.charges) == 1


async def test_another_attempt_with_an_old_cart_is_refused(topology_app: TopologyApp):
    """A different key is a different order, and the cart that it saw is gone."""
    checkout = topology_app.stub(Checkout)
    with topology_app.fake(Cart, _Cart()), topology_app.fake(Payments, _Payments()):
        placed = await checkout.place("key", PURCHASE)
        assert placed.total == Money("EUR", Decimal("243.50"))
        with pytest.raises(CartChanged):
            await checkout.place("other", PURCHASE)
        with pytest.raises(CartEmpty):
            await checkout.place("other", replace(PURCHASE, cart_version=2))
