"""How well a version tells fraud from the rest, on shoppers that it has not seen. Needs nothing but the shop itself."""

from __future__ import annotations

from boutique.decisions import Inputs
from boutique.decisions.features import HISTORY, inputs
from boutique.decisions.scoring import Additive
from boutique.decisions.training.world import Labelled, World
from seamline.models.features import Case
from seamline.models.watch.quality import Quality, quality

THRESHOLD = 0.6
"""From here on a human looks; see ``rules.cedar``."""
_UNSEEN, _SHOPPERS = 7, 600


def rows_of(seed: int, shoppers: int) -> list[tuple[Labelled, Inputs]]:
    """Each order with what was known when it was asked about: the point-in-time join of the shop's own features."""
    world = World(seed)
    world.live(shoppers)
    cases = [Case(each.question.shopper, each.at) for each in world.cases]
    vectors = HISTORY.of_history((event for _, _, event in world.events), cases)
    return [(each, inputs(each.question, vector.values)) for each, vector in zip(world.cases, vectors, strict=True)]


def measure(model: Additive, rows: list[tuple[Labelled, Inputs]]) -> Quality:
    return quality([(model.score(given).probability, each.fraud) for each, given in rows], THRESHOLD)


def figures(model: Additive) -> dict[str, float]:
    """For ``seamline models eval Fraud``."""
    found = measure(model, rows_of(_UNSEEN, _SHOPPERS))
    told = {"auc": found.auc, "precision": found.precision, "recall": found.recall, "brier": found.brier}
    return {name: round(value, 4) for name, value in told.items() if value is not None}
