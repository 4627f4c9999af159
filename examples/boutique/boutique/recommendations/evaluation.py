"""How good the versions are, on shoppers that were made up.

They were made up so that there is something to find: each has one or two habits, and habits are not categories. The
figures say how the versions compare where that is so, and nothing of a real shop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2
from random import Random

from boutique.recommendations import Why
from boutique.recommendations.learning import learn
from boutique.recommendations.ranking import Knowledge, Neighbours, Parts, Scorer, best, popular

HABITS = (
    ("pour-over-stand", "enamel-kettle", "stoneware-mug", "field-notebook"),
    ("field-notebook", "brass-pen", "harbour-lamp", "beeswax-candle"),
    ("terracotta-pot", "watering-can", "linen-apron", "round-sunglasses"),
    ("bicycle-bell", "canvas-tote", "round-sunglasses", "quiet-clock"),
    ("wool-throw", "beeswax-candle", "walnut-board", "stoneware-mug"),
)
Case = tuple[frozenset[str], frozenset[str]]
"""What a shopper had, and what they bought next."""

DAYS = 90
LEARNED_DAYS = 70
FROM_HABIT = 0.8


@dataclass(frozen=True, slots=True)
class Basket:
    shopper: str
    day: float
    products: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over shoppers: of what they bought next, how much was among the first k; and how far in front."""

    recall: float
    ndcg: float


def made_up(products: Sequence[str], shoppers: int = 600, seed: int = 7) -> list[Basket]:
    """Orders of three months, the oldest first. The same for the same seed."""
    dice = Random(seed)
    found: list[Basket] = []
    for number in range(shoppers):
        habits = dice.sample(HABITS, dice.choice((1, 1, 2)))
        likely = sorted({product for habit in habits for product in habit})
        for _ in range(dice.randint(2, 6)):
            day, pieces = dice.uniform(0, DAYS), set[str]()
            for _ in range(dice.randint(1, 3)):
                if dice.random() < FROM_HABIT:
                    pieces.add(dice.choice(likely))
                else:  # anything, the front of the shelf more often than its end
                    pieces.add(products[int(len(products) * dice.random() ** 2)])
            found.append(Basket(f"shopper-{number}", day, tuple(sorted(pieces))))
    return sorted(found, key=lambda basket: basket.day)


def compare(
    scorers: Mapping[str, Scorer], products: Sequence[str], alike: Neighbours, *, k: int = 4, seed: int = 7
) -> dict[str, Quality]:
    """Each on what shoppers who are known bought first after day 70, learned from what was ordered before it."""
    baskets = made_up(products, seed=seed)
    past = [basket for basket in baskets if basket.day < LEARNED_DAYS]
    learned = learn([(basket.shopper, basket.products) for basket in past])
    known = Knowledge(products, alike, learned.together, learned.liked, learned.orders)
    history = dict[str, set[str]]()
    for basket in past:
        history.setdefault(basket.shopper, set()).update(basket.products)
    cases = list[Case]()
    seen = set[str]()
    for basket in baskets:
        if basket.day >= LEARNED_DAYS and basket.shopper in history and basket.shopper not in seen:
            seen.add(basket.shopper)
            if new := frozenset(basket.products) - history[basket.shopper]:
                cases.append((frozenset(history[basket.shopper]), new))
    return {name: _quality(scorer, known, cases, k) for name, scorer in scorers.items()}


def evaluated(scorer: Scorer, products: Sequence[str], alike: Neighbours) -> dict[str, float]:
    """One version beside what everybody likes, and beside lots drawn."""
    found = compare({"": scorer, "_of_popular": popular, "_of_random": by_lot}, products, alike)
    return {
        f"{measure}_at_4{name}": round(getattr(quality, measure), 4)
        for measure in ("recall", "ndcg")
        for name, quality in found.items()
    }


def by_lot(known: Knowledge, taken: object, product_id: str) -> Parts:
    """What chance would do; the order of what has no score is drawn by lot."""
    _ = known, taken, product_id
    return {Why.LIKED: 0.0}


def _quality(scorer: Scorer, known: Knowledge, cases: Sequence[Case], k: int) -> Quality:
    recall = ndcg = 0.0
    for taken, wanted in cases:
        found = [each.product_id for each in best(scorer, known, taken, k)]
        recall += sum(product in wanted for product in found) / min(len(wanted), k)
        gain = sum(1 / log2(place + 2) for place, product in enumerate(found) if product in wanted)
        ndcg += gain / sum(1 / log2(place + 2) for place in range(min(len(wanted), k)))
    return Quality(recall / len(cases), ndcg / len(cases))
