"""The inside of emails: one letter for each thing that happened, however often it is told."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import TextClause, bindparam, select, text

from boutique.cart import Cart, CartLeft
from boutique.checkout import Checkout, OrderPlaced, OrderUndone
from boutique.emails import Emails, Letter, LetterKind, LetterNotFound, LetterWritten, letters
from boutique.emails.tables import metadata, outbox, reminders
from seamline import Clock, Database, Events, Module

module = Module("emails", provides=Emails, tables=metadata)


def _insert(table: str, key: str) -> TextClause:
    """Reads the same in SQLite and PostgreSQL."""
    names = [*key.split(", "), "recipient", "subject", "text", "written_at"]
    values = ", ".join(f":{name}" for name in names)
    return text(
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values}) ON CONFLICT ({key}) DO NOTHING"  # noqa: S608
    ).bindparams(bindparam("written_at", type_=outbox.c.written_at.type))


_ABOUT_ORDER = _insert("outbox", "order_id")
_ABOUT_CART = _insert("reminders", "shopper, version")


class Desk:
    """Where letters are written: each with the event that tells of it, or not at all."""

    def __init__(self, db: Database, events: Events, clock: Clock) -> None:
        self._db = db
        self._events = events
        self._clock = clock

    async def about_order(self, order_id: str, kind: LetterKind, letter: Letter) -> None:
        await self._write(_ABOUT_ORDER, {"order_id": order_id}, order_id, kind, letter)

    async def about_cart(self, shopper: str, version: int, letter: Letter) -> None:
        key: dict[str, str | int] = {"shopper": shopper, "version": version}
        await self._write(_ABOUT_CART, key, shopper, LetterKind.REMINDER, letter)

    async def _write(
        self, into: TextClause, key: dict[str, str | int], about: str, kind: LetterKind, letter: Letter
    ) -> None:
        now: datetime = self._clock.now()
        row = {
            **key,
            "recipient": letter.recipient,
            "subject": letter.subject,
            "text": letter.text,
            "written_at": now,
        }
        async with self._db.transaction() as connection:
            if (await connection.execute(into, row)).rowcount:
                await self._events.publish(LetterWritten(about=about, kind=kind, at=now))


@module.provide
def desk(db: Database, events: Events, clock: Clock) -> Desk:
    return Desk(db, events, clock)


@module.on(OrderPlaced)
async def confirm(event: OrderPlaced, checkout: Checkout, desk: Desk) -> None:
    order = await checkout.order(event.order_id)
    await desk.about_order(order.id, LetterKind.CONFIRMATION, letters.confirmation(order))


@module.on(OrderUndone, where=lambda event: event.reviewed)
async def refuse(event: OrderUndone, checkout: Checkout, desk: Desk) -> None:
    """Whoever was refused at the till has read it there; after a review nobody is at the till any more."""
    order = await checkout.order(event.order_id)
    await desk.about_order(order.id, LetterKind.REFUSAL, letters.refusal(order))


@module.on(CartLeft)
async def remind(event: CartLeft, cart: Cart, desk: Desk) -> None:
    """Once, if the cart is as it was when the timer was set."""
    contents = await cart.contents(event.shopper)
    if contents.version == event.version and contents.lines:
        await desk.about_cart(event.shopper, event.version, letters.reminder(contents.pieces))


@module.service
class EmailService(Emails):
    def __init__(self, db: Database) -> None:
        self._db = db

    async def letter(self, order_id: str) -> Letter:
        async with self._db.read() as connection:
            found = await connection.execute(
                select(outbox.c.recipient, outbox.c.subject, outbox.c.text).where(outbox.c.order_id == order_id)
            )
            row = found.first()
        if row is None:
            raise LetterNotFound(order_id=order_id)
        return Letter(row.recipient, row.subject, row.text)

    async def reminder(self, shopper: str, version: int) -> Letter | None:
        async with self._db.read() as connection:
            found = await connection.execute(
                select(reminders.c.recipient, reminders.c.subject, reminders.c.text).where(
                    reminders.c.shopper == shopper, reminders.c.version == version
                )
            )
            row = found.first()
        return None if row is None else Letter(row.recipient, row.subject, row.text)
