"""What this process knows when it is asked: the shelf, what is alike on it, and what was learned last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import msgspec
from sqlalchemy import select, text

from boutique.catalog import Catalog, Product
from boutique.recommendations import Similar
from boutique.recommendations.alike import Computed, by_kinds, digest_of, neighbours, stored, texts_of
from boutique.recommendations.learning import Learned
from boutique.recommendations.ranking import Knowledge, Neighbours
from boutique.recommendations.tables import learned, shelves
from seamline import CallError, Clock, Database
from seamline.models.errors import ExtraMissingError

LOOK_EVERY_S = 10.0
"""For what another process learned."""
ASK_AGAIN_S = 60.0

_NEWEST = select(learned.c.number, learned.c.said).order_by(learned.c.number.desc()).limit(1)
_KEEP = text("INSERT INTO shelves (digest, said) VALUES (:digest, :said) ON CONFLICT (digest) DO NOTHING")

_log = logging.getLogger("boutique.recommendations")


class Known:
    """Asked for every suggestion: the shelf comes from the catalog, the rest is looked up now and then."""

    def __init__(self, db: Database, catalog: Catalog, similar: Similar, clock: Clock) -> None:
        self._db = db
        self._catalog = catalog
        self._similar = similar
        self._clock = clock
        self._products: tuple[Product, ...] = ()
        self._alike: Neighbours = {}
        self._learned = Learned(0)
        self._number = 0
        self._knowledge = Knowledge((), {})
        self._look_at = self._ask_at = float("-inf")
        self._asking = False

    async def now(self) -> Knowledge:
        """Raises CallError where the catalog does not answer."""
        products = await self._catalog.list_products()
        now = self._clock.monotonic()
        changed = products is not self._products and products != self._products
        if changed or now >= self._ask_at:
            await self._look_alike(products, now)
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            await self._look_up()
        if changed or self._knowledge.alike is not self._alike or self._knowledge.liked is not self._learned.liked:
            self._knowledge = Knowledge(
                [product.id for product in products],
                self._alike,
                self._learned.together,
                self._learned.liked,
                self._learned.orders,
            )
        return self._knowledge

    async def _look_up(self) -> None:
        async with self._db.read() as connection:
            row = (await connection.execute(_NEWEST)).first()
        if row is not None and row.number != self._number:
            self._number, self._learned = int(row.number), msgspec.json.decode(row.said, type=Learned)

    async def _look_alike(self, products: tuple[Product, ...], now: float) -> None:
        """From the file, from the database, or from the encoder; meanwhile, and without one, by categories."""
        if self._asking and products == self._products:
            return
        texts = texts_of(products)
        digest = digest_of(texts)
        found = await self._kept(digest)
        if found is None:
            self._products, self._alike, self._asking = products, by_kinds(products), True
            self._ask_at = now + ASK_AGAIN_S  # also if nobody waits for the answer any more
            try:
                found = await self._asked(digest, texts)
            except (CallError, ExtraMissingError) as error:
                _log.warning("Products are alike by their categories only, for now: %s", error)
                return
            finally:
                self._asking = False
        self._products, self._alike, self._ask_at = products, found.alike, float("inf")

    async def _kept(self, digest: str) -> Computed | None:
        of_file = stored()
        if of_file.digest == digest:
            return of_file
        async with self._db.read() as connection:
            said = (await connection.execute(select(shelves.c.said).where(shelves.c.digest == digest))).scalar()
        return None if said is None else msgspec.json.decode(said, type=Computed)

    async def _asked(self, digest: str, texts: Mapping[str, str]) -> Computed:
        vectors = await asyncio.gather(*(self._similar.embed(each) for each in texts.values()))
        near = await asyncio.to_thread(neighbours, dict(zip(texts, vectors, strict=True)))
        found = Computed(digest, near)
        async with self._db.transaction() as connection:
            await connection.execute(_KEEP, {"digest": digest, "said": msgspec.json.encode(found)})
        return found
