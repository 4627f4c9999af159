"""The product catalog."""

from __future__ import annotations

import re

from fastapi import FastAPI, HTTPException
from pydantic import TypeAdapter

from benchmarks.peers.boutique_fastapi.models import Product
from benchmarks.peers.boutique_fastapi.platform import Settings, service

_WORD = re.compile(r"\w+")
_QUERY_WORDS_MAX = 8


def create(settings: Settings) -> FastAPI:
    app = service("catalog", settings)
    shelf = TypeAdapter(tuple[Product, ...]).validate_python(settings.data["shelf"])
    by_id = {product.id: product for product in shelf}
    index = [
        (
            product,
            (
                (4, _words(product.name)),
                (2, _words(" ".join(product.categories))),
                (1, _words(f"{product.tagline} {product.description}")),
            ),
        )
        for product in shelf
    ]

    @app.get("/products")
    async def list_products() -> tuple[Product, ...]:
        return shelf

    @app.get("/products/{product_id}")
    async def product(product_id: str) -> Product:
        found = by_id.get(product_id)
        if found is None:
            raise HTTPException(404, "product")
        return found

    @app.get("/search")
    async def search(query: str) -> tuple[Product, ...]:
        asked = _WORD.findall(query.casefold())[:_QUERY_WORDS_MAX]
        found: list[tuple[int, Product]] = []
        for product, fields in index:
            scores = [
                max((weight for weight, words in fields if any(w.startswith(a) for w in words)), default=0)
                for a in asked
            ]
            if scores and all(scores):
                found.append((sum(scores), product))
        found.sort(key=lambda scored: -scored[0])
        return tuple(product for _, product in found)

    return app


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.casefold()))
