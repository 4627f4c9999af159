"""What is known of a shopper, and what the model is told of it: the same code serves, trains and replays."""

from __future__ import annotations

from collections.abc import Mapping

from boutique.checkout import OrderPlaced, OrderUndone
from boutique.decisions import Inputs, Judged, Question
from seamline.events.streams import stream
from seamline.models.features import FeatureSet, count, distinct, last, mean, since_first

HOUR_S = 3600
DAY_S = 86_400
MONTH_S = 30 * DAY_S

judged = stream(Judged, at=lambda e: e.at).by(shopper=lambda e: e.shopper)
placed = stream(OrderPlaced, at=lambda e: e.placed_at).by(shopper=lambda e: e.shopper)
failed = stream(OrderUndone, at=lambda e: e.at, where=lambda e: not e.reviewed).by(shopper=lambda e: e.shopper)

HISTORY = FeatureSet(
    "shopper_history",
    orders_1h=count(placed, within_s=HOUR_S),
    orders_30d=count(placed, within_s=MONTH_S),
    failed_1h=count(failed, within_s=HOUR_S),
    cards_1d=distinct(judged, lambda e: e.card, within_s=DAY_S),
    countries_1d=distinct(judged, lambda e: e.country, within_s=DAY_S),
    last_card=last(judged, lambda e: e.card, within_s=MONTH_S),
    last_country=last(judged, lambda e: e.country, within_s=MONTH_S),
    mean_cents_30d=mean(judged, lambda e: e.cents, within_s=MONTH_S),
    known_s=since_first(judged, within_s=MONTH_S),
)

Past = Mapping[str, float | int | str | None]
"""The features of :data:`HISTORY`."""


def inputs(question: Question, past: Past) -> Inputs:
    """The order itself is counted in: its card and its country are as new as they are."""
    cents = int(question.worth.amount * 100)
    usual = _number(past["mean_cents_30d"])
    new_card = past["last_card"] is not None and past["last_card"] != question.card
    new_country = past["last_country"] is not None and past["last_country"] != question.country
    return Inputs(
        worth=cents / 100,
        pieces=float(question.pieces),
        times_usual=cents / usual if usual else 1.0,
        orders_1h=_number(past["orders_1h"]),
        orders_30d=_number(past["orders_30d"]),
        failed_1h=_number(past["failed_1h"]),
        cards_1d=_number(past["cards_1d"]) + (new_card or past["last_card"] is None),
        countries_1d=_number(past["countries_1d"]) + (new_country or past["last_country"] is None),
        new_card=float(new_card),
        new_country=float(new_country),
        known_days=_number(past["known_s"]) / DAY_S,
    )


def _number(value: float | str | None) -> float:
    return float(value or 0)
