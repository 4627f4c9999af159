"""The inside of recommendations: a repeatable shuffle of what is not yet in the cart."""

from __future__ import annotations

from zlib import crc32

from boutique.catalog import Catalog
from boutique.recommendations import Recommendations
from seamline import Module

module = Module("recommendations", provides=Recommendations)


@module.service
class RecommendationService(Recommendations):
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def others(self, product_ids: tuple[str, ...], limit: int = 4) -> tuple[str, ...]:
        products = await self._catalog.list_products()
        taken = frozenset(product_ids)
        liked = {category for product in products if product.id in taken for category in product.categories}
        seed = crc32(",".join(sorted(taken)).encode())
        candidates = [
            # Products of a category the shopper likes come first; within both groups the seed decides.
            (liked.isdisjoint(product.categories), crc32(product.id.encode(), seed), product.id)
            for product in products
            if product.id not in taken
        ]
        return tuple(product_id for _, _, product_id in sorted(candidates)[: max(0, limit)])
