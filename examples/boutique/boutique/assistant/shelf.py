"""What on the shelf a question is about: the model is told, so that it need not know the shop by heart."""

from __future__ import annotations

import re
from collections.abc import Sequence

from boutique.catalog import Product

THINGS_MAX = 4
_WORD = re.compile(r"[a-z0-9]+")
_PLAIN = frozenset(
    _WORD.findall(
        "a about an and any are at but buy can cost costs could do does expensive for from get give has have "
        "how i in is it its like long looking me much my need no not of on one or our please price sell ship "
        "shop show so some tell that the their them there they this to us want was we what when where which "
        "who why will with would you your"
    )
)
_ANYTHING = frozenset(("cheap", "cheapest", "gift", "idea", "present", "shelf", "something", "thing"))
"""As ``words`` gives them."""


def words(text: str) -> frozenset[str]:
    """What a text is about; of plurals and singulars, the same."""
    found = {word for word in _WORD.findall(text.lower()) if word not in _PLAIN}
    return frozenset(word.removesuffix("s") if len(word) > 3 else word for word in found)


def things_for(question: str, before: str, products: Sequence[Product]) -> tuple[Product, ...]:
    """The products that a question speaks of, the likeliest first; if it speaks of none, those of the question before.

    Who asks for a present, or for something cheap, is shown what costs least.
    """
    for text in (question, before):
        mentioned = words(text)
        asked = mentioned - _ANYTHING
        ranked = sorted(((_fit(asked, each), -at, each) for at, each in enumerate(products)), key=lambda row: row[:2])
        found = tuple(product for fit, _, product in reversed(ranked) if fit)
        if found:
            best = ranked[-1][0]
            # What only shares a word of its description does not stand beside what was named.
            return tuple(each for each in found if _fit(asked, each) * 3 > best)[:THINGS_MAX]
        if mentioned & _ANYTHING:
            return tuple(sorted(products, key=lambda product: product.price.amount))[: THINGS_MAX - 1]
    return ()


def _fit(asked: frozenset[str], product: Product) -> int:
    return (
        9 * len(asked & words(product.name))
        + 4 * len(asked & words(" ".join(product.categories)))
        + len(asked & words(f"{product.tagline} {product.description} {' '.join(product.details)}"))
    )


def told(products: Sequence[Product]) -> str:
    """What the model hears before the conversation, in the words that it was trained with."""
    return told_rows([row(each.name, f"{each.price.amount:.2f}", each.tagline) for each in products])


def row(name: str, price: str, tagline: str) -> str:
    return f"- {name}, {price} euros: {tagline}"


def told_rows(rows: Sequence[str]) -> str:
    found = "\n" + "\n".join(rows) if rows else " nothing that fits."
    return f"You help in Hemstitch, a small shop. On the shelf:{found}"
