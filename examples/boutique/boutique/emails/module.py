"""The inside of emails: a letter in plain text, written once for each order."""

from __future__ import annotations

from sqlalchemy import bindparam, select, text

from boutique.checkout import Order
from boutique.emails import Emails, Letter, LetterNotFound
from boutique.emails.tables import metadata, outbox
from seamline import Clock, Database, Module

module = Module("emails", provides=Emails, tables=metadata)

# Reads the same in SQLite and PostgreSQL.
_WRITE = text(
    "INSERT INTO outbox (order_id, recipient, subject, text, written_at) "
    "VALUES (:order_id, :recipient, :subject, :text, :written_at) ON CONFLICT (order_id) DO NOTHING"
).bindparams(bindparam("written_at", type_=outbox.c.written_at.type))


def compose(order: Order) -> Letter:
    """The confirmation, in plain text, 72 columns wide."""
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
    return Letter(order.email, f"Your order {order.id[:8]} is on its way", body)


@module.service
class EmailService(Emails):
    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def confirm_order(self, order: Order) -> None:
        letter = compose(order)
        async with self._db.transaction() as connection:
            await connection.execute(
                _WRITE,
                {
                    "order_id": order.id,
                    "recipient": letter.recipient,
                    "subject": letter.subject,
                    "text": letter.text,
                    "written_at": self._clock.now(),
                },
            )

    async def letter(self, order_id: str) -> Letter:
        async with self._db.read() as connection:
            found = await connection.execute(
                select(outbox.c.recipient, outbox.c.subject, outbox.c.text).where(outbox.c.order_id == order_id)
            )
            row = found.first()
        if row is None:
            raise LetterNotFound(order_id=order_id)
        return Letter(row.recipient, row.subject, row.text)
