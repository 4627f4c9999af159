"""Ads: the same question has the same answer."""

from __future__ import annotations

from typing import Annotated
from zlib import crc32

from fastapi import FastAPI, Query
from pydantic import TypeAdapter

from benchmarks.peers.boutique_fastapi.models import Ad
from benchmarks.peers.boutique_fastapi.platform import Settings, service


def create(settings: Settings) -> FastAPI:
    app = service("ads", settings)
    by_category = TypeAdapter(dict[str, tuple[Ad, ...]]).validate_python(settings.data["ads"])
    everything = tuple(ad for ads in by_category.values() for ad in ads)

    @app.get("/ads")
    async def choose(categories: Annotated[list[str], Query()]) -> Ad:
        suitable = [ad for category in categories for ad in by_category.get(category, ())] or everything
        return suitable[crc32(",".join(categories).encode()) % len(suitable)]

    return app
