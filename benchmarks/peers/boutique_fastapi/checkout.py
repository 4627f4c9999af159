"""Checkout: price the cart, charge, ship, confirm; the same attempt twice is one order."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from uuid import UUID, uuid5

import httpx
from fastapi import FastAPI, HTTPException
from pydantic import TypeAdapter
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.peers.boutique_fastapi import store
from benchmarks.peers.boutique_fastapi.models import (
    CartContents,
    Charge,
    ChargeRequest,
    Conversion,
    Money,
    Order,
    OrderLine,
    Product,
    Purchase,
    Quote,
    Shipment,
)
from benchmarks.peers.boutique_fastapi.platform import Others, Refused, Services, Settings, service
from benchmarks.peers.boutique_fastapi.store import Engine, orders

_log = logging.getLogger("boutique.checkout")
_ORDERS = UUID("0d3f3a55-8a2f-4b07-8d1c-6a3b6f0f2e77")
_PRICED, _PLACED = "priced", "placed"

_CART = TypeAdapter(CartContents)
_QUOTE = TypeAdapter(Quote)
_MONEY = TypeAdapter(Money)
_PRODUCT = TypeAdapter(Product)
_CHARGE = TypeAdapter(Charge)
_TEXT = TypeAdapter(str)
_NOTHING = TypeAdapter(None)


def create(settings: Settings) -> FastAPI:
    app = service("checkout", settings, opened=store.database("checkout", store.checkout, settings))

    @app.put("/orders/by-key/{key}")
    async def place(key: str, purchase: Purchase, engine: Engine, services: Others) -> Order:
        order_id = str(uuid5(_ORDERS, key))
        status, order = await _find(engine, order_id)
        if order is None:
            status, order = await _record(engine, await _price(services, order_id, purchase))
        if status == _PLACED:
            return order
        charge = await _charge(engine, services, order, purchase)
        order = await _ship(services, order, charge)
        await _confirm(services, order)
        await services.send(
            "DELETE", "cart", f"/carts/{purchase.shopper}", None, _NOTHING, version=purchase.cart_version
        )
        await _finish(engine, order)
        return order

    @app.get("/orders/{order_id}")
    async def order(order_id: str, engine: Engine) -> Order:
        status, found = await _find(engine, order_id)
        if found is None or status != _PLACED:
            raise HTTPException(404, "order")
        return found

    return app


async def _price(services: Services, order_id: str, purchase: Purchase) -> Order:
    cart = await services.get("cart", f"/carts/{purchase.shopper}", _CART)
    if cart.version != purchase.cart_version:
        raise HTTPException(409, "cart changed")
    if not cart.lines:
        raise HTTPException(409, "cart empty")
    quote = await services.get("shipping", "/quote", _QUOTE, pieces=cart.pieces, country=purchase.address.country)
    shipping = await _convert(services, quote.cost, purchase.currency)
    total, lines = shipping, list[OrderLine]()
    for line in cart.lines:
        product = await services.get("catalog", f"/products/{line.product_id}", _PRODUCT)
        price = await _convert(services, product.price, purchase.currency)
        lines.append(OrderLine(product_id=product.id, name=product.name, quantity=line.quantity, price=price))
        total += price * line.quantity
    return Order(
        id=order_id,
        lines=tuple(lines),
        shipping=shipping,
        total=total,
        email=purchase.email,
        address=purchase.address,
    )


async def _convert(services: Services, money: Money, to: str) -> Money:
    return await services.send("POST", "currency", "/convert", Conversion(money=money, to=to), _MONEY)


async def _charge(engine: AsyncEngine, services: Services, order: Order, purchase: Purchase) -> Charge:
    asked = ChargeRequest(order_id=order.id, amount=order.total, card=purchase.card)
    try:
        return await services.send("POST", "payments", "/charges", asked, _CHARGE)
    except Refused as refused:
        if refused.status == 402:
            async with engine.begin() as connection:
                await connection.execute(delete(orders).where(orders.c.id == order.id, orders.c.status == _PRICED))
        raise


async def _ship(services: Services, order: Order, charge: Charge) -> Order:
    shipment = Shipment(order_id=order.id, address=order.address, pieces=sum(line.quantity for line in order.lines))
    try:
        tracking_id = await services.send("POST", "shipping", "/shipments", shipment, _TEXT)
    except Refused:
        await services.send("POST", "payments", f"/charges/{charge.id}/refund", None, _NOTHING)
        raise
    return order.model_copy(
        update={"tracking_id": tracking_id, "card_brand": charge.brand, "card_last_four": charge.last_four}
    )


async def _confirm(services: Services, order: Order) -> None:
    try:
        await services.send("POST", "emails", "/confirmations", order, _NOTHING)
    except (Refused, httpx.HTTPError) as error:
        _log.warning("order %s has no confirmation: %s", order.id, error)


async def _find(engine: AsyncEngine, order_id: str) -> tuple[str, Order | None]:
    async with engine.connect() as connection:
        found = await connection.execute(select(orders.c.status, orders.c.content).where(orders.c.id == order_id))
        row = found.first()
    return ("", None) if row is None else (row.status, Order.model_validate_json(row.content))


async def _record(engine: AsyncEngine, order: Order) -> tuple[str, Order]:
    row = {
        "id": order.id,
        "status": _PRICED,
        "content": order.model_dump_json(),
        "created_at": datetime.now(UTC),
    }
    try:
        async with engine.begin() as connection:
            await connection.execute(insert(orders).values(row))
    except IntegrityError:
        status, first = await _find(engine, order.id)
        if first is None:
            raise
        return status, first
    return _PRICED, order


async def _finish(engine: AsyncEngine, order: Order) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            update(orders).where(orders.c.id == order.id).values(status=_PLACED, content=order.model_dump_json())
        )
