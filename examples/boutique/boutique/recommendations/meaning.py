"""The shelf by what it means: an index of its texts, made when somebody asks first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from boutique.catalog import Catalog
from boutique.recommendations import Meaning, Similar
from boutique.recommendations.alike import texts_of
from seamline.models.index import Near, VectorIndex

NEAR_ENOUGH = 0.2
"""The cosine below which a product has nothing to do with what was asked."""


class MeaningService(Meaning):
    def __init__(self, catalog: Catalog, similar: Similar) -> None:
        self._catalog = catalog
        self._similar = similar
        self._index: VectorIndex | None = None
        self._texts: dict[str, str] = {}
        """As they stand in the index."""

    async def find(self, text: str, limit: int = 4) -> tuple[str, ...]:
        texts = texts_of(await self._catalog.list_products())
        new = {name: told for name, told in texts.items() if self._texts.get(name) != told}
        asked, *vectors = await asyncio.gather(*(self._similar.embed(each) for each in (text, *new.values())))
        # In a thread, since NumPy is loaded at the first time.
        near = await asyncio.to_thread(self._nearest, dict(zip(new, vectors, strict=True)), asked, limit)
        self._texts = texts
        return tuple(each.name for each in near if each.similarity >= NEAR_ENOUGH and each.name in texts)

    def _nearest(self, new: dict[str, tuple[float, ...]], asked: Sequence[float], limit: int) -> list[Near]:
        index = self._index = VectorIndex(len(asked)) if self._index is None else self._index
        index.put(new)
        return index.nearest(asked, max(0, limit))
