"""How often a model says what stands on a shelf that it has never seen: no product here is the shop's."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from boutique.assistant.shelf import row, told_rows
from seamline.models.chat import ChatAnswer, ChatRequest, Message

_MAKES = ("Oak", "Copper", "Linen", "Slate", "Felt", "Olive", "River", "Winter", "Marble", "Cork")
_NOUNS = ("Bowl", "Lantern", "Brush", "Teapot", "Basket", "Mirror", "Scarf", "Ladle", "Stool", "Tray")
_TAGLINES = (
    "Made for slow mornings.",
    "Warm enough for the balcony.",
    "Good for two friends.",
    "Right for a long table.",
)
_ASKS = ("How much is the {}?", "Do you have a {}?", "Tell me about the {}")
_CASES = 30


async def evaluated(complete: Callable[[ChatRequest], Awaitable[ChatAnswer]]) -> dict[str, float]:
    """The share of answers that name the right thing, and that give its price; of made-up shelves of three things."""
    lot = random.Random(7)
    named = priced = 0
    for at in range(_CASES):
        names = [f"{make} {noun}" for make, noun in zip(lot.sample(_MAKES, 3), lot.sample(_NOUNS, 3), strict=True)]
        prices = [f"{lot.randint(2, 120)}.{lot.choice(('00', '50', '90'))}" for _ in names]
        rows = [row(name, price, lot.choice(_TAGLINES)) for name, price in zip(names, prices, strict=True)]
        chosen = lot.randrange(3)
        asked = Message(role="user", content=_ASKS[at % len(_ASKS)].format(names[chosen]))
        request = ChatRequest(messages=(Message(role="system", content=told_rows(rows)), asked), tokens_max=60)
        said = (await complete(request)).message.content
        named += names[chosen] in said
        priced += f" {prices[chosen]} " in said
    return {"right_thing": named / _CASES, "right_price": priced / _CASES}
