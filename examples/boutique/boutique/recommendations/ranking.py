"""From what is known to an order of products. Plain sums over lists of neighbours: microseconds, and no library."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from zlib import crc32

from boutique.recommendations import Suggestion, Why

Neighbours = Mapping[str, Mapping[str, float]]
"""For each product, those that are near it, with how near: 0 to 1."""

Parts = Mapping[Why, float]
"""What speaks for a product; their sum is its score."""

ORDERS_HALF = 100
"""Orders after which what was learned of them counts half."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    products: Sequence[str]
    alike: Neighbours
    together: Neighbours = field(default_factory=dict[str, Mapping[str, float]])
    liked: Mapping[str, float] = field(default_factory=dict[str, float])
    """How often it is bought, beside the product that is bought most."""
    orders: int = 0


def popular(known: Knowledge, taken: Collection[str], product_id: str) -> Parts:
    """The same for everybody: what is bought most."""
    _ = taken
    return {Why.LIKED: known.liked.get(product_id, 0.0)}


def content(known: Knowledge, taken: Collection[str], product_id: str) -> Parts:
    """What is like the products in question, by what is written of it; also if nobody ever bought it."""
    return {Why.ALIKE: _mean(known.alike, taken, product_id), Why.LIKED: 0.01 * known.liked.get(product_id, 0.0)}


def together(known: Knowledge, taken: Collection[str], product_id: str) -> Parts:
    """What those buy who buy the products in question."""
    return {Why.TOGETHER: _mean(known.together, taken, product_id), Why.LIKED: 0.01 * known.liked.get(product_id, 0.0)}


def hybrid(known: Knowledge, taken: Collection[str], product_id: str) -> Parts:
    """Content while there are few orders, and more and more of what was learned from them."""
    learned = known.orders / (known.orders + ORDERS_HALF)
    return {
        Why.ALIKE: (1 - 0.8 * learned) * _mean(known.alike, taken, product_id),
        Why.TOGETHER: 2 * learned * _mean(known.together, taken, product_id),
        Why.LIKED: 0.1 * learned * known.liked.get(product_id, 0.0),
    }


Scorer = Callable[[Knowledge, Collection[str], str], Parts]


def best(scorer: Scorer, known: Knowledge, product_ids: Collection[str], limit: int) -> tuple[Suggestion, ...]:
    """The products that ``scorer`` puts first and that are not in ``product_ids``, whatever their order is."""
    taken = sorted(frozenset(product_ids))
    seed = crc32(",".join(taken).encode())
    ranked: list[tuple[float, int, str, Why]] = []
    for product_id in known.products:
        if product_id in taken:
            continue
        parts = scorer(known, taken, product_id)
        score = round(sum(parts.values()), 4)  # what differs by less differs between processors
        why = max(parts, key=lambda part: parts[part]) if score > 0 else Why.CHANCE
        ranked.append((-score, crc32(product_id.encode(), seed), product_id, why))
    ranked.sort()
    return tuple(Suggestion(product_id, why) for _, _, product_id, why in ranked[: max(0, limit)])


def _mean(near: Neighbours, taken: Collection[str], product_id: str) -> float:
    if not taken:
        return 0.0
    return sum(near.get(each, {}).get(product_id, 0.0) for each in taken) / len(taken)
