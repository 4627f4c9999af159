"""The way of an order: each step is undone when a later one fails, and goes on after a crash where it was.

Reserve the stock, charge, ship, empty the cart, and enter the order as placed together with the event that tells of
it. The confirmation follows from the event, once, when ``emails`` hears of it. An order above a sum, or one that may
be fraud, waits for a human before it is charged: it goes on in a saga of its own, so that the shopper is told at once.
"""

from __future__ import annotations

from dataclasses import replace

from boutique.cart import Cart, CartLine
from boutique.checkout import (
    REVIEW_ABOVE,
    REVIEW_WITHIN_S,
    CardDeclined,
    Order,
    OrderRefused,
    OrderStatus,
    OutOfStock,
)
from boutique.checkout.orders import Agreed, Orders
from boutique.inventory import Inventory, Pieces
from boutique.payments import Charge, Payments
from boutique.shipping import CountryNotServed, Shipping
from seamline import ApprovalExpired, CallError, Fault, Saga, Sagas
from seamline.sagas.errors import StepFailed

APPROVAL = "review"


async def checkout(
    s: Saga,
    agreed: Agreed,
    orders: Orders,
    sagas: Sagas,
    inventory: Inventory,
    payments: Payments,
    shipping: Shipping,
    cart: Cart,
) -> Order:
    """From what was agreed to an order that is placed, or in review."""
    order = agreed.order
    await s.step(orders.begin, agreed, s.id, undo=orders.undo)
    try:
        await _put_aside(s, order, inventory)
        if agreed.review or agreed.worth.amount > REVIEW_ABOVE.amount:
            await _empty(s, agreed, cart)

            async def hand_over() -> None:
                reviewing = await sagas.start(review, agreed, key=order.id)
                await orders.review(order.id, reviewing.id)

            await s.step(hand_over)
            return replace(order, status=OrderStatus.IN_REVIEW)
        placed = await _charge_and_ship(s, agreed, payments, shipping)
        await _empty(s, agreed, cart)
    except (Fault, CallError, StepFailed) as failure:
        await s.step(orders.explain, order.id, reason_of(failure))
        raise
    await s.step(orders.place, agreed, placed)
    return placed


async def review(
    s: Saga,
    agreed: Agreed,
    orders: Orders,
    inventory: Inventory,
    payments: Payments,
    shipping: Shipping,
    cart: Cart,
) -> Order:
    """From an order whose pieces are put aside, by way of a human, to one that is placed."""
    order = agreed.order
    # All three are done, and done again have no effect; from here on it is for this saga to undo them.
    await s.step(orders.begin, agreed, s.id, undo=orders.undo)
    try:
        await _put_aside(s, order, inventory)
        await _empty(s, agreed, cart)
        await _approved(s, agreed, orders)
        placed = await _charge_and_ship(s, agreed, payments, shipping)
    except (Fault, CallError, StepFailed) as failure:
        await s.step(orders.explain, order.id, reason_of(failure))
        raise
    await s.step(orders.place, agreed, placed)
    return placed


async def _put_aside(s: Saga, order: Order, inventory: Inventory) -> None:
    lines = tuple(Pieces(line.product_id, line.quantity) for line in order.lines)

    async def release(order_id: str, lines: tuple[Pieces, ...]) -> None:
        _ = lines  # all of them
        await inventory.release(order_id)

    await s.step(inventory.reserve, order.id, lines, undo=release)


async def _charge_and_ship(s: Saga, agreed: Agreed, payments: Payments, shipping: Shipping) -> Order:
    order, pieces = agreed.order, sum(line.quantity for line in agreed.order.lines)

    async def refund(charge: Charge) -> None:
        await payments.refund(charge.id)

    charge = await s.step(payments.charge, order.id, order.total, agreed.card, undo=refund)
    tracking_id = await s.step(shipping.ship, order.id, order.address, pieces, undo=lambda _: shipping.cancel(order.id))
    return replace(
        order,
        tracking_id=tracking_id,
        card_brand=charge.brand,
        card_last_four=charge.last_four,
        status=OrderStatus.PLACED,
    )


async def _empty(s: Saga, agreed: Agreed, cart: Cart) -> None:
    lines = tuple(CartLine(line.product_id, line.quantity) for line in agreed.order.lines)

    async def put_back(version: int) -> None:
        await cart.put_back(agreed.shopper, version, lines)

    await s.step(cart.empty, agreed.shopper, agreed.cart_version, undo=put_back)


async def _approved(s: Saga, agreed: Agreed, orders: Orders) -> None:
    """Raises ``OrderRefused``."""
    try:
        answer = await s.approval(
            APPROVAL, timeout_s=REVIEW_WITHIN_S, order=agreed.order.id, worth=str(agreed.worth), shopper=agreed.shopper
        )
    except ApprovalExpired:
        raise OrderRefused(order_id=agreed.order.id) from None
    await s.step(orders.decided, agreed.order.id, answer)
    if not answer.approved:
        raise OrderRefused(order_id=agreed.order.id)


def reason_of(failure: Exception) -> str:
    """What to tell the shopper."""
    match failure:
        case OutOfStock(left=left):
            return f"There were only {left} left of something you wanted." if left else "Something was sold out."
        case CardDeclined():
            return "Your card was declined."
        case CountryNotServed():
            return "No parcel of ours goes there."
        case OrderRefused():
            return "We cannot be sure that it is yours."
        case _:
            return "A part of the shop could not do its work."
