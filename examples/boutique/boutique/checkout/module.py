"""The inside of checkout: price the cart, and start the saga that carries the order out."""

from __future__ import annotations

import hashlib
import logging

from boutique.cart import Cart
from boutique.catalog import Catalog
from boutique.checkout import (
    BLIND_REVIEW_ABOVE,
    CardDeclined,
    CartChanged,
    CartEmpty,
    Checkout,
    CountryNotServed,
    NotInReview,
    NotRefundable,
    Order,
    OrderLine,
    OrderNotFound,
    OrderRefused,
    OrderReview,
    OrderStatus,
    OrderUnfinished,
    OutOfStock,
    Purchase,
    Refunds,
    Waiting,
)
from boutique.checkout.orders import Agreed, Orders, order_id
from boutique.checkout.sagas import APPROVAL, checkout, review
from boutique.checkout.tables import metadata
from boutique.currency import Currency
from boutique.decisions import Decisions, Question, Verdict
from boutique.money import Money
from boutique.payments import CardToken, Payments
from boutique.shipping import Shipping
from seamline import CallError, Clock, Database, Events, Fault, Module, Sagas
from seamline.sagas.errors import SagasError

_log = logging.getLogger("boutique.checkout")

PATIENCE_S = 3.0
"""A shopper is not kept at the till for longer; the order goes on without."""

module = Module("checkout", provides=(Checkout, OrderReview, Refunds), tables=metadata)
module.saga(checkout)
module.saga(review)

_TOLD_AT_THE_TILL = (OutOfStock, CardDeclined, CountryNotServed)


@module.provide
def orders(db: Database, events: Events, clock: Clock) -> Orders:
    return Orders(db, events, clock)


@module.service
class CheckoutService(Checkout):
    def __init__(
        self,
        orders: Orders,
        sagas: Sagas,
        cart: Cart,
        catalog: Catalog,
        currency: Currency,
        payments: Payments,
        shipping: Shipping,
        decisions: Decisions,
    ) -> None:
        self._decisions = decisions
        self._orders = orders
        self._sagas = sagas
        self._cart = cart
        self._catalog = catalog
        self._currency = currency
        self._payments = payments
        self._shipping = shipping

    async def place(self, key: str, purchase: Purchase) -> Order:
        known = await self._orders.latest(key)
        if known is not None and known.order.status is not OrderStatus.UNDONE:
            return await self._outcome_of(known.order, known.saga)
        number = 1 if known is None else known.number + 1
        try:
            agreed = await self._agree(key, number, purchase)
        except (CartChanged, CartEmpty):
            # The same attempt, sent twice at once, may have emptied the cart by now.
            twin = await self._orders.latest(key)
            if twin is None or twin.number < number:
                raise
            return await self._outcome_of(twin.order, twin.saga)
        except CallError as error:
            _log.warning("order %s was not begun: %s", order_id(key, number), error)
            raise OrderUnfinished(order_id=order_id(key, number)) from error
        handle = await self._sagas.start(checkout, agreed, key=agreed.order.id)
        return await self._outcome_of(agreed.order, handle.id)

    async def order(self, order_id: str) -> Order:
        found = await self._orders.find(order_id)
        if found is None:
            raise OrderNotFound(order_id=order_id)
        return found

    async def _outcome_of(self, order: Order, saga: str) -> Order:
        """What becomes of an order within the shopper's patience."""
        if order.status in (OrderStatus.PLACED, OrderStatus.IN_REVIEW):
            return order
        try:
            return await self._sagas.handle(saga).result(timeout_s=PATIENCE_S)
        except _TOLD_AT_THE_TILL:
            raise
        except (TimeoutError, CallError, SagasError, Fault) as error:
            _log.warning("order %s is unfinished: %s", order.id, error)
            raise OrderUnfinished(order_id=order.id) from error

    async def _agree(self, key: str, number: int, purchase: Purchase) -> Agreed:
        """The order as it will be charged: every price converted once, the total an exact sum."""
        cart = await self._cart.contents(purchase.shopper)
        if cart.version != purchase.cart_version:
            raise CartChanged(version=cart.version)
        if not cart.lines:
            raise CartEmpty
        quote = await self._shipping.quote(cart.pieces, purchase.address.country)
        shipping = await self._currency.convert(quote.cost, purchase.currency)
        total, worth, lines = shipping, quote.cost, list[OrderLine]()
        for line in cart.lines:
            product = await self._catalog.product(line.product_id)
            price = await self._currency.convert(product.price, purchase.currency)
            lines.append(OrderLine(product.id, product.name, line.quantity, price))
            total += price * line.quantity
            worth += product.price * line.quantity
        card = await self._payments.tokenise(purchase.card)
        order = Order(order_id(key, number), tuple(lines), shipping, total, purchase.email, purchase.address)
        asked = Question(order.id, purchase.shopper, worth, cart.pieces, purchase.address.country, card_of(card))
        verdict = await self._judged(asked)
        if verdict is Verdict.REFUSE:
            raise OrderRefused(order_id=order.id)
        review = verdict is Verdict.REVIEW
        return Agreed(key, number, purchase.shopper, purchase.cart_version, order, worth, card, review)

    async def _judged(self, asked: Question) -> Verdict:
        """What is decided on an order. When nobody decides, what is small is taken and what is large waits."""
        try:
            return (await self._decisions.decide(asked)).verdict
        except CallError as error:
            _log.warning("nobody decided on order %s: %s", asked.order_id, error)
            return Verdict.REVIEW if asked.worth.amount > BLIND_REVIEW_ABOVE.amount else Verdict.ACCEPT


def card_of(card: CardToken) -> str:
    """Tells one card of a shopper from another, and not what is on it."""
    return hashlib.sha256(f"{card.brand} {card.last_four} {card.month} {card.year}".encode()).hexdigest()[:16]


@module.service
class ReviewService(OrderReview):
    def __init__(self, orders: Orders, sagas: Sagas) -> None:
        self._orders = orders
        self._sagas = sagas

    async def waiting(self) -> tuple[Waiting, ...]:
        return await self._orders.in_review()

    async def decide(self, order_id: str, approved: bool, by: str, comment: str) -> None:  # as declared
        saga = await self._orders.saga_in_review(order_id)
        if saga is None:
            raise NotInReview(order_id=order_id)
        await self._sagas.handle(saga).approve(APPROVAL, by=by, comment=comment, approved=approved)


@module.service
class RefundService(Refunds):
    def __init__(self, orders: Orders, payments: Payments) -> None:
        self._orders = orders
        self._payments = payments

    async def refund(self, order_id: str, total: Money) -> Order:
        order = await self._orders.find(order_id)
        if order is None:
            raise OrderNotFound(order_id=order_id)
        # Policy judged the sum that was said, so it must be the true one.
        if order.total != total or order.status not in (OrderStatus.PLACED, OrderStatus.REFUNDED):
            raise NotRefundable(order_id=order_id, total=order.total)
        charge = await self._payments.charge_of(order_id)
        await self._payments.refund(charge.id)
        return await self._orders.refunded(order)
