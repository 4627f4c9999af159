"""The inside of checkout: price the cart, charge, ship, confirm; the same attempt twice is one order."""

from __future__ import annotations

import logging
from dataclasses import replace
from uuid import UUID, uuid5

import msgspec
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from boutique.cart import Cart
from boutique.catalog import Catalog
from boutique.checkout import (
    CartChanged,
    CartEmpty,
    Checkout,
    Order,
    OrderLine,
    OrderNotFound,
    OrderUnfinished,
    Purchase,
)
from boutique.checkout.tables import metadata, orders
from boutique.currency import Currency
from boutique.emails import Emails
from boutique.payments import CardDeclined, Charge, Payments
from boutique.shipping import CountryNotServed, Shipping
from seamline import CallError, Clock, Database, Module

_log = logging.getLogger("boutique.checkout")

module = Module("checkout", provides=Checkout, tables=metadata)

# Order ids are drawn from the attempt's key: a repeated attempt finds the order of the first.
_ORDERS = UUID("0d3f3a55-8a2f-4b07-8d1c-6a3b6f0f2e77")
_PRICED, _PLACED = "priced", "placed"


@module.service
class CheckoutService(Checkout):
    def __init__(
        self,
        db: Database,
        clock: Clock,
        cart: Cart,
        catalog: Catalog,
        currency: Currency,
        payments: Payments,
        shipping: Shipping,
        emails: Emails,
    ) -> None:
        self._db = db
        self._clock = clock
        self._cart = cart
        self._catalog = catalog
        self._currency = currency
        self._payments = payments
        self._shipping = shipping
        self._emails = emails

    async def place(self, key: str, purchase: Purchase) -> Order:
        order_id = str(uuid5(_ORDERS, key))
        try:
            return await self._place(order_id, purchase)
        except CallError as error:
            _log.warning("order %s is unfinished: %s", order_id, error)
            raise OrderUnfinished(order_id=order_id) from error

    async def _place(self, order_id: str, purchase: Purchase) -> Order:
        status, order = await self._find(order_id)
        if order is None:
            try:
                priced = await self._price(order_id, purchase)
            except (CartChanged, CartEmpty):
                # The same attempt, sent twice at once, may be done by now and have emptied the cart.
                status, order = await self._find(order_id)
                if order is None:
                    raise
            else:
                status, order = await self._record(priced)
        # Every step may be repeated: each is keyed by the order, or by the cart's version, and has its effect once.
        if status != _PLACED:
            charge = await self._charge(order, purchase)
            order = await self._ship(order, charge)
            await self._confirm(order)
            await self._finish(order)
        await self._cart.empty(purchase.shopper, purchase.cart_version)
        return order

    async def order(self, order_id: str) -> Order:
        status, order = await self._find(order_id)
        if order is None or status != _PLACED:
            raise OrderNotFound(order_id=order_id)
        return order

    async def _price(self, order_id: str, purchase: Purchase) -> Order:
        """The order as it will be charged: every price converted once, the total an exact sum."""
        cart = await self._cart.contents(purchase.shopper)
        if cart.version != purchase.cart_version:
            raise CartChanged(version=cart.version)
        if not cart.lines:
            raise CartEmpty
        quote = await self._shipping.quote(cart.pieces, purchase.address.country)
        shipping = await self._currency.convert(quote.cost, purchase.currency)
        total, lines = shipping, list[OrderLine]()
        for line in cart.lines:
            product = await self._catalog.product(line.product_id)
            price = await self._currency.convert(product.price, purchase.currency)
            lines.append(OrderLine(product.id, product.name, line.quantity, price))
            total += price * line.quantity
        return Order(order_id, tuple(lines), shipping, total, purchase.email, purchase.address)

    async def _charge(self, order: Order, purchase: Purchase) -> Charge:
        try:
            return await self._payments.charge(order.id, order.total, await self._payments.tokenise(purchase.card))
        except CardDeclined:
            # Nothing was charged: forget the price, so that a corrected form is taken as it then stands.
            async with self._db.transaction() as connection:
                await connection.execute(delete(orders).where(orders.c.id == order.id, orders.c.status == _PRICED))
            raise

    async def _ship(self, order: Order, charge: Charge) -> Order:
        pieces = sum(line.quantity for line in order.lines)
        try:
            tracking_id = await self._shipping.ship(order.id, order.address, pieces)
        except CountryNotServed:
            await self._payments.refund(charge.id)
            raise
        return replace(order, tracking_id=tracking_id, card_brand=charge.brand, card_last_four=charge.last_four)

    async def _confirm(self, order: Order) -> None:
        try:
            await self._emails.confirm_order(order)
        except CallError as error:  # a letter that could not be written does not undo a paid order
            _log.warning("order %s has no confirmation: %s", order.id, error)

    async def _find(self, order_id: str) -> tuple[str, Order | None]:
        async with self._db.read() as connection:
            found = await connection.execute(select(orders.c.status, orders.c.content).where(orders.c.id == order_id))
            row = found.first()
        return ("", None) if row is None else (row.status, msgspec.json.decode(row.content, type=Order))

    async def _record(self, order: Order) -> tuple[str, Order]:
        try:
            async with self._db.transaction() as connection:
                await connection.execute(
                    insert(orders).values(
                        id=order.id, status=_PRICED, content=_json(order), created_at=self._clock.now()
                    )
                )
        except IntegrityError:  # the same attempt, sent twice at once: the first one's price counts
            status, first = await self._find(order.id)
            if first is None:
                raise
            return status, first
        return _PRICED, order

    async def _finish(self, order: Order) -> None:
        placed = {"status": _PLACED, "content": _json(order)}
        async with self._db.transaction() as connection:
            known = await connection.execute(update(orders).where(orders.c.id == order.id).values(placed))
            if not known.rowcount:  # the same attempt with another card was declined meanwhile, and forgot the price
                await connection.execute(insert(orders).values(id=order.id, created_at=self._clock.now(), **placed))


def _json(order: Order) -> str:
    return msgspec.json.encode(order).decode()
