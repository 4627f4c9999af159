"""Emails: a letter in plain text, written once for each order into an outbox."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import FastAPI, HTTPException
from sqlalchemy import bindparam, select, text

from benchmarks.peers.boutique_fastapi import store
from benchmarks.peers.boutique_fastapi.models import Letter, Order
from benchmarks.peers.boutique_fastapi.platform import Settings, service
from benchmarks.peers.boutique_fastapi.store import Engine, outbox

_WRITE = text(
    "INSERT INTO outbox (order_id, recipient, subject, text, written_at) "
    "VALUES (:order_id, :recipient, :subject, :text, :written_at) ON CONFLICT (order_id) DO NOTHING"
).bindparams(bindparam("written_at", type_=outbox.c.written_at.type))


def create(settings: Settings) -> FastAPI:
    app = service("emails", settings, opened=store.database("emails", store.emails, settings))

    @app.post("/confirmations")
    async def confirm_order(order: Order, engine: Engine) -> None:
        letter = _compose(order)
        values = letter.model_dump() | {"order_id": order.id, "written_at": datetime.now(UTC)}
        async with engine.begin() as connection:
            await connection.execute(_WRITE, values)

    @app.get("/confirmations/{order_id}")
    async def letter(order_id: str, engine: Engine) -> Letter:
        async with engine.connect() as connection:
            found = await connection.execute(
                select(outbox.c.recipient, outbox.c.subject, outbox.c.text).where(outbox.c.order_id == order_id)
            )
            row = found.first()
        if row is None:
            raise HTTPException(404, "letter")
        return Letter(recipient=row.recipient, subject=row.subject, text=row.text)

    return app


def _compose(order: Order) -> Letter:
    rows = [(f"{line.quantity} x {line.name}", str(line.price * line.quantity)) for line in order.lines]
    rows += [("Shipping", str(order.shipping)), ("Total", str(order.total))]
    width = max(len(amount) for _, amount in rows)
    table = "\n".join(f"  {label:<46}{amount:>{width + 2}}" for label, amount in rows)
    address = order.address
    body = f"""Dear {address.name},

thank you for your order. Here is what we are packing for you:

{table}

It goes to {address.street}, {address.postal_code} {address.city} ({address.country}).
Your parcel's number is {order.tracking_id}.
We charged your card ending in {order.card_last_four}.

With kind regards from the workshop,
Hemstitch
"""
    return Letter(recipient=order.email, subject=f"Your order {order.id[:8]} is on its way", text=body)
