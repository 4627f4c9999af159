"""The letters in plain text, 72 columns wide."""

from __future__ import annotations

from boutique.checkout import Order
from boutique.emails import Letter

_CLOSING = """With kind regards from the workshop,
Hemstitch
"""


def confirmation(order: Order) -> Letter:
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

{_CLOSING}"""
    return Letter(order.email, f"Your order {order.id[:8]} is on its way", body)


def refusal(order: Order) -> Letter:
    body = f"""Dear {order.address.name},

we looked at your order and cannot take it. {order.reason}

Nothing was charged, and what you chose lies in your bag again.

{_CLOSING}"""
    return Letter(order.email, f"About your order {order.id[:8]}", body)


def reminder(pieces: int) -> Letter:
    things = "one thing" if pieces == 1 else f"{pieces} things"
    body = f"""Hello,

you left {things} in your bag. It is still there, and so are we.

{_CLOSING}"""
    return Letter("the owner of the bag", "Your bag is waiting", body)
