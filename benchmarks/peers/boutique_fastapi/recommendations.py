"""Recommendations: a repeatable shuffle of what is not yet in the cart."""

from __future__ import annotations

from typing import Annotated
from zlib import crc32

from fastapi import FastAPI, Query
from pydantic import TypeAdapter

from benchmarks.peers.boutique_fastapi.models import Product
from benchmarks.peers.boutique_fastapi.platform import Others, Settings, service

_PRODUCTS = TypeAdapter(tuple[Product, ...])


def create(settings: Settings) -> FastAPI:
    app = service("recommendations", settings)

    @app.get("/recommendations")
    async def others(
        services: Others, product_ids: Annotated[list[str] | None, Query()] = None, limit: int = 4
    ) -> tuple[str, ...]:
        products = await services.get("catalog", "/products", _PRODUCTS)
        taken = frozenset(product_ids or ())
        liked = {category for product in products if product.id in taken for category in product.categories}
        seed = crc32(",".join(sorted(taken)).encode())
        candidates = [
            (liked.isdisjoint(product.categories), crc32(product.id.encode(), seed), product.id)
            for product in products
            if product.id not in taken
        ]
        return tuple(product_id for _, _, product_id in sorted(candidates)[: max(0, limit)])

    return app
