"""The inside of the catalog: a shelf in memory and an index of its words."""

from __future__ import annotations

import re

from boutique.catalog import Catalog, Product, ProductNotFound
from boutique.catalog.shelf import SHELF
from seamline import Module

module = Module("catalog", provides=Catalog)

_WORD = re.compile(r"\w+")
_QUERY_WORDS_MAX = 8


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.casefold()))


@module.service
class CatalogService(Catalog):
    def __init__(self) -> None:
        self._by_id = {product.id: product for product in SHELF}
        # A word in the name counts most, then in the categories, then anywhere.
        self._index = [
            (
                product,
                (
                    (4, _words(product.name)),
                    (2, _words(" ".join(product.categories))),
                    (1, _words(f"{product.tagline} {product.description}")),
                ),
            )
            for product in SHELF
        ]

    async def list_products(self) -> tuple[Product, ...]:
        return SHELF

    async def product(self, product_id: str) -> Product:
        product = self._by_id.get(product_id)
        if product is None:
            raise ProductNotFound(product_id=product_id)
        return product

    async def search(self, query: str) -> tuple[Product, ...]:
        asked = _WORD.findall(query.casefold())[:_QUERY_WORDS_MAX]
        if not asked:
            return ()
        found: list[tuple[int, Product]] = []
        for product, fields in self._index:
            scores = [
                max((weight for weight, words in fields if any(w.startswith(a) for w in words)), default=0)
                for a in asked
            ]
            if all(scores):
                found.append((sum(scores), product))
        found.sort(key=lambda scored: -scored[0])  # stable: equal scores keep the order of the shelf
        return tuple(product for _, product in found)
