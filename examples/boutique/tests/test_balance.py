"""The checker is checked: each imbalance that could be planted is found, and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from examples.boutique.tests.balance import Books, findings

from seamline.events.log.rows import Kept, to_row
from seamline.events.record import Record


def told(position: int, type_: str, key: str) -> dict[str, Any]:
    """A row of a log."""
    record = Record(id=f"event-{position}", source="m", type=type_, data=b"{}", time_ms=position, key=key)
    return Kept(position, *to_row(record, 16))._asdict()


def content(amount: str, quantity: int) -> str:
    return json.dumps(
        {"total": {"currency": "EUR", "amount": amount}, "lines": [{"product_id": "lamp", "quantity": quantity}]}
    )


def sound() -> Books:
    """A shop with an order placed, one undone after its charge, one in review, and one refused by a human."""
    return Books(
        stock=[{"product_id": "lamp", "opening": 10, "restocked": 5, "free": 10, "reserved": 3, "sold": 2}],
        deliveries=[{"id": "d", "product_id": "lamp", "pieces": 5}],
        reservations=[
            {"order_id": "placed", "status": "sold"},
            {"order_id": "undone", "status": "released"},
            {"order_id": "waiting", "status": "held"},
            {"order_id": "refused", "status": "released"},
        ],
        reserved_lines=[
            {"order_id": "placed", "product_id": "lamp", "quantity": 2},
            {"order_id": "undone", "product_id": "lamp", "quantity": 4},
            {"order_id": "waiting", "product_id": "lamp", "quantity": 3},
            {"order_id": "refused", "product_id": "lamp", "quantity": 3},
        ],
        charges=[
            {"order_id": "placed", "currency": "EUR", "amount": "20.00", "refunded_at": None},
            {"order_id": "undone", "currency": "EUR", "amount": "40.00", "refunded_at": "2026-01-01"},
        ],
        payment_log=[
            told(1, "PaymentCaptured", "placed"),
            told(2, "PaymentCaptured", "undone"),
            told(3, "PaymentRefunded", "undone"),
        ],
        parcels=[
            {"order_id": "placed", "cancelled_at": None},
            {"order_id": "undone", "cancelled_at": "2026-01-01"},
        ],
        letters=[{"order_id": "placed", "subject": "On its way"}, {"order_id": "refused", "subject": "About it"}],
        letter_log=[told(1, "LetterWritten", "placed"), told(2, "LetterWritten", "refused")],
        orders=[
            {"id": "placed", "status": "placed", "reviewed": 0, "content": content("20.00", 2)},
            {"id": "undone", "status": "undone", "reviewed": 0, "content": content("40.00", 4)},
            {"id": "waiting", "status": "in review", "reviewed": 1, "content": content("30.00", 3)},
            {"id": "refused", "status": "undone", "reviewed": 1, "content": content("30.00", 3)},
        ],
        sagas=[
            {"id": "1", "type": "checkout", "key": "placed", "status": "done", "ended_ms": 9, "stuck": ""},
            {"id": "2", "type": "review", "key": "waiting", "status": "waiting", "ended_ms": 0, "stuck": ""},
        ],
        order_log=[
            told(1, "OrderPlaced", "placed"),
            told(2, "OrderUndone", "undone"),
            told(3, "OrderUndone", "refused"),
        ],
    )


def test_sound_books_balance():
    assert findings(sound()) == []


Plant = Callable[[Books], object]
PLANTED: dict[str, tuple[Plant, str]] = {
    "a lamp too many": (lambda b: b.stock[0].update(free=11), "stock of lamp: 16 pieces"),
    "reserved, not entered": (lambda b: b.reserved_lines.pop(2), "3 pieces are reserved, but the entries say 0"),
    "sold twice": (lambda b: b.stock[0].update(sold=4, free=8), "4 pieces are sold, but the entries say 2"),
    "a delivery lost": (lambda b: b.deliveries.clear(), "5 pieces are restocked, but the entries say 0"),
    "charged too much": (lambda b: b.charges[0].update(amount="21.00"), "money: 21.00 EUR were kept"),
    "charged other than agreed": (lambda b: b.charges[0].update(amount="21.00"), "21.00 was charged for 20.00"),
    "charged twice": (
        lambda b: b.charges.append({**b.charges[0], "order_id": "copy"}),
        "money: 40.00 EUR were kept, but the orders placed cost 20.00",
    ),
    "not given back": (
        lambda b: b.charges[1].update(refunded_at=None),
        "order undone is undone, but 40.00 EUR are kept",
    ),
    "given back though placed": (lambda b: b.charges[0].update(refunded_at="x"), "is placed, but it is not paid"),
    "placed without a charge": (lambda b: b.charges.pop(0), "it is not paid"),
    "placed without a parcel": (lambda b: b.parcels.pop(0), "no parcel goes"),
    "placed, parcel called off": (lambda b: b.parcels[0].update(cancelled_at="x"), "no parcel goes"),
    "placed, still held": (
        lambda b: b.reservations[0].update(status="held"),
        "order placed is placed, but its pieces are held",
    ),
    "other pieces than ordered": (lambda b: b.reserved_lines[0].update(quantity=1), "were put aside"),
    "placed, never told": (lambda b: b.order_log.pop(0), "OrderPlaced was told 0 times"),
    "placed, told twice": (
        lambda b: b.order_log.append(told(9, "OrderPlaced", "placed")),
        "OrderPlaced was told 2 times",
    ),
    "placed and undone": (lambda b: b.order_log.append(told(9, "OrderUndone", "placed")), "OrderUndone 1 times"),
    "no confirmation": (lambda b: b.letters.pop(0), "0 letters lie there"),
    "confirmed twice": (lambda b: b.letters.append(b.letters[0]), "2 letters lie there"),
    "confirmation told twice": (
        lambda b: b.letter_log.append(told(9, "LetterWritten", "placed")),
        "1 letters lie there and 2 were told of",
    ),
    "confirmed though undone": (
        lambda b: b.letters.append({"order_id": "undone", "subject": "On its way"}),
        "order undone is undone, but 1 letters",
    ),
    "undone, still held": (
        lambda b: b.reservations[1].update(status="held"),
        "order undone is undone, but its pieces are held",
    ),
    "undone, parcel goes": (lambda b: b.parcels[1].update(cancelled_at=None), "its parcel goes"),
    "undone, never told": (lambda b: b.order_log.pop(1), "OrderUndone 0 times"),
    "captured twice": (
        lambda b: b.payment_log.append(told(9, "PaymentCaptured", "placed")),
        "PaymentCaptured was told 2",
    ),
    "refund not told": (lambda b: b.payment_log.pop(2), "PaymentRefunded was told 0 times, not 1"),
    "charged before the review": (
        lambda b: b.charges.append({"order_id": "waiting", "currency": "EUR", "amount": "30.00", "refunded_at": None}),
        "order waiting is in review, but it is charged",
    ),
    "sent before the review": (
        lambda b: b.parcels.append({"order_id": "waiting", "cancelled_at": None}),
        "it has a parcel",
    ),
    "in review, let go": (lambda b: b.reservations[2].update(status="released"), "its pieces are released"),
    "nobody waits": (lambda b: b.sagas.pop(1), "0 sagas wait for its approval"),
    "left in the middle": (lambda b: b.orders[1].update(status="under way"), "nothing should be under way"),
    "a saga left behind": (lambda b: b.sagas[0].update(ended_ms=0), "saga checkout placed is done, and nothing"),
    "a saga is stuck": (lambda b: b.sagas[1].update(stuck="no answer"), "is stuck: no answer"),
    "pieces of nobody": (
        lambda b: b.reservations.append({"order_id": "stray", "status": "held"}),
        "pieces are held for order stray",
    ),
    "money of nobody": (
        lambda b: b.charges.append({"order_id": "stray", "currency": "EUR", "amount": "0", "refunded_at": None}),
        "order stray was charged",
    ),
    "a parcel of nobody": (
        lambda b: b.parcels.append({"order_id": "stray", "cancelled_at": None}),
        "a parcel goes for order stray",
    ),
    "a letter about nothing": (
        lambda b: b.letters.append({"order_id": "stray", "subject": "x"}),
        "a letter was written about order stray",
    ),
    "an event that died": (
        lambda b: b.dead_letters.append({"event_id": "e", "type": "OrderPlaced", "reason": "poison", "detail": ""}),
        "the event OrderPlaced e is dead: poison",
    ),
}


@pytest.mark.parametrize("name", list(PLANTED))
def test_a_planted_imbalance_is_found(name: str):
    """Each is named by a sentence of its own."""
    plant, sentence = PLANTED[name]
    books = deepcopy(sound())
    plant(books)
    found = findings(books)
    assert any(sentence in line for line in found), found
