"""What orders tell: products that the same shoppers buy, and products that are bought most.

Implicit factorisation (Y. Hu, Y. Koren and C. Volinsky, "Collaborative Filtering for Implicit Feedback Datasets",
2008): shoppers and products get vectors such that who bought what has a product near 1, and more surely so the more
often it was bought; each side is solved for the other in turn.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from seamline.models.errors import ExtraMissingError
from seamline.models.extras import required
from seamline.models.index import VectorIndex

FACTORS_MAX = 32
PRODUCTS_PER_FACTOR = 3
"""With more factors than a third of the products they learn single orders by heart, and predict worse."""
ROUNDS = 12
SURENESS = 2.0
DAMPING = 5.0
NEAREST = 40
NEAR = 0.05
"""What is not as similar has nothing to do with it."""
SHOPPERS_FEW = 8
"""Of a product that so many bought, its neighbours count half."""

_log = logging.getLogger("boutique.recommendations")

Baskets = Sequence[tuple[str, Sequence[str]]]
"""A shopper and the products of an order, the oldest order first."""


class Learned(msgspec.Struct, frozen=True):
    """See :class:`~boutique.recommendations.ranking.Knowledge`."""

    orders: int
    together: dict[str, dict[str, float]] = {}
    liked: dict[str, float] = {}


def learn(baskets: Baskets) -> Learned:
    """Where the extra ``models`` is not installed, only what is bought most."""
    counts = Counter(product for _, products in baskets for product in frozenset(products))
    most = max(counts.values(), default=1)
    liked = {product: round(count / most, 4) for product, count in counts.items()}
    try:
        together = _together(baskets) if baskets else {}
    except ExtraMissingError as error:
        _log.warning("What is bought together is not learned: %s", error)
        together = {}
    return Learned(len(baskets), together, liked)


def _together(baskets: Baskets) -> dict[str, dict[str, float]]:
    numpy = required("numpy")
    shoppers = {shopper: row for row, shopper in enumerate(dict.fromkeys(shopper for shopper, _ in baskets))}
    products = {product: row for row, product in enumerate(sorted({p for _, bought in baskets for p in bought}))}
    times = numpy.zeros((len(shoppers), len(products)), "float32")
    for shopper, bought in baskets:
        for product in frozenset(bought):
            times[shoppers[shopper], products[product]] += 1
    vectors = _factors(numpy, times)
    buyers = (times > 0).sum(axis=0)
    index = VectorIndex(vectors.shape[1])
    index.put(dict(zip(products, vectors, strict=True)))
    found: dict[str, dict[str, float]] = {}
    for product, row in products.items():
        trusted: dict[str, float] = {}
        for near in index.nearest(vectors[row], NEAREST + 1):
            few = min(buyers[row], buyers[products[near.name]])
            if near.name != product and near.similarity > NEAR:
                trusted[near.name] = round(near.similarity * float(few / (few + SHOPPERS_FEW)), 4)
        found[product] = trusted
    return found


def _factors(numpy: Any, times: Any) -> Any:
    """A vector for each product: columns of ``times``, which counts what shoppers bought."""
    dice = numpy.random.default_rng(1)
    factors = max(2, min(FACTORS_MAX, times.shape[1] // PRODUCTS_PER_FACTOR))
    ours = dice.normal(0, 0.1, (times.shape[1], factors)).astype("float32")
    for _ in range(ROUNDS):
        theirs = _solved(numpy, times, ours)
        ours = _solved(numpy, times.T, theirs)
    return ours


def _solved(numpy: Any, times: Any, fixed: Any) -> Any:
    """The vectors of the rows of ``times``, those of its columns being ``fixed``."""
    factors = fixed.shape[1]
    pairs = (fixed[:, :, None] * fixed[:, None, :]).reshape(len(fixed), -1)
    sides = fixed.T @ fixed + DAMPING * numpy.eye(factors, dtype="float32")
    matrices = sides + SURENESS * (times @ pairs).reshape(-1, factors, factors)
    wanted = ((times > 0) + SURENESS * times) @ fixed
    return numpy.linalg.solve(matrices, wanted[:, :, None])[:, :, 0]
