"""The inside of recommendations: versions of one model side by side, the encoder behind them, and what feeds them."""

from __future__ import annotations

from typing import ClassVar

from boutique.catalog import Catalog
from boutique.checkout import OrderPlaced
from boutique.frontend import ProductViewed
from boutique.recommendations import Meaning, Recommendations, Similar, Suggestions, Uptake, Uptakes, alike, ranking
from boutique.recommendations.evaluation import evaluated
from boutique.recommendations.known import Known
from boutique.recommendations.learner import Learner
from boutique.recommendations.meaning import MeaningService
from boutique.recommendations.tables import metadata
from seamline import Batch, Clock, Database, Module, Watch, batched
from seamline.models.runtimes.encoder import Encoder

module = Module("recommendations", provides=(Recommendations, Meaning, Similar, Uptakes), tables=metadata)


_ANSWERS_MAX = 1_000


class Ranking:
    """A version: what it says is a way to score products, and the rest is the same."""

    version: ClassVar[str]
    scorer: ClassVar[ranking.Scorer]

    def __init__(self, known: Known) -> None:
        self._known = known
        self._knowledge: ranking.Knowledge | None = None
        self._answers: dict[tuple[frozenset[str], int], Suggestions] = {}

    async def others(self, product_ids: tuple[str, ...], limit: int = 4) -> tuple[str, ...]:
        return tuple(item.product_id for item in (await self.suggest(product_ids, limit)).items)

    async def suggest(self, product_ids: tuple[str, ...], limit: int = 4) -> Suggestions:
        known = await self._known.now()
        if known is not self._knowledge:  # what was answered before may be answered otherwise now
            self._knowledge, self._answers = known, {}
        asked = frozenset(product_ids), limit
        answer = self._answers.get(asked)
        if answer is None:
            answer = Suggestions(self.version, ranking.best(type(self).scorer, known, *asked))
            if len(self._answers) < _ANSWERS_MAX:
                self._answers[asked] = answer
        return answer

    def evaluate(self) -> dict[str, float]:
        """On shoppers that were made up; see :mod:`boutique.recommendations.evaluation`."""
        computed = alike.stored().alike
        return evaluated(type(self).scorer, list(computed), computed)


@module.model(Recommendations, version="hybrid-1", runs_in="loop", watch=Watch())
class Hybrid(Ranking):
    version, scorer = "hybrid-1", ranking.hybrid


@module.model(Recommendations, version="together-1", runs_in="loop", watch=Watch())
class Together(Ranking):
    version, scorer = "together-1", ranking.together


@module.model(Recommendations, version="content-1", runs_in="loop", watch=Watch())
class Content(Ranking):
    version, scorer = "content-1", ranking.content


@module.model(Recommendations, version="popular-1", runs_in="loop", watch=Watch())
class Popular(Ranking):
    version, scorer = "popular-1", ranking.popular


VERSIONS = frozenset(model.version for model in module.models)


@module.model(Similar, version="minilm-l6-v2", batch=Batch(max=32), loads="first_call", idle_s=60)
class MiniLm:
    """all-MiniLM-L6-v2. It is asked for meanings and of a shelf that has changed, and gives its memory back soon."""

    def load(self) -> None:
        self._encoder = Encoder.of_package(alike.MODEL)

    @batched
    def embed(self, text: list[str]) -> list[tuple[float, ...]]:
        return [tuple(row) for row in self._encoder.embed(text).tolist()]


@module.provide
def known(db: Database, catalog: Catalog, similar: Similar, clock: Clock) -> Known:
    return Known(db, catalog, similar, clock)


@module.provide
def learner(db: Database, clock: Clock) -> Learner:
    return Learner(db, clock)


@module.on(OrderPlaced, batch=200)
async def learn(orders: list[OrderPlaced], learner: Learner) -> None:
    await learner.ordered(orders)


@module.on(ProductViewed, batch=200, where=lambda event: event.via in VERSIONS)
async def count(views: list[ProductViewed], learner: Learner) -> None:
    await learner.clicked(views)


module.service(MeaningService)


@module.service
class UptakeService(Uptakes):
    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    async def uptake(self) -> tuple[Uptake, ...]:
        return await self._learner.uptake()
