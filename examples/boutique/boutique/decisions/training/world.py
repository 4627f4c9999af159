"""A month of shoppers who do not exist: most are honest, some of them in odd ways, and a few are not.

Honest are the casual and the regular, offices that order all day long, visitors who come once, and all of them mistype
cards and find things sold out. Fraud is of three kinds: trying stolen cards out, taking an account over, and buying up
large things quickly with several cards. A first order by a thief looks like a visitor's, as it does in the world.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from boutique.checkout import OrderPlaced, OrderUndone
from boutique.decisions import Judged, Question, Verdict
from boutique.money import Money
from seamline import Event

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 30
_COUNTRIES = ("BE", "NL", "DE", "FR", "LU", "AT", "IT", "ES", "GB", "US")


@dataclass(frozen=True, slots=True)
class Labelled:
    """An order as it was asked about, and whether it was fraud."""

    question: Question
    at: datetime
    fraud: bool


class World:
    """``events`` in the order in which they happened, once :meth:`live` is done."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self.events: list[tuple[datetime, int, Event]] = []
        self.cases: list[Labelled] = []

    def live(self, shoppers: int) -> None:
        for number in range(shoppers):
            kind = self._dice.random()
            shopper = f"shopper-{number}"
            if kind < 0.45:
                self._honest(shopper, orders=1, within_s=60)
            elif kind < 0.80:
                self._honest(shopper, orders=self._dice.randint(2, 6), within_s=DAYS * 86_400)
            elif kind < 0.93:
                self._honest(shopper, orders=self._dice.randint(6, 16), within_s=DAYS * 86_400)
            elif kind < 0.97:
                self._office(shopper)
            elif kind < 0.98:
                self._tests_cards(shopper)
            elif kind < 0.99:
                self._takes_over(shopper)
            else:
                self._buys_up(shopper)
        self.events.sort(key=lambda each: each[:2])

    def _any_time(self, margin_s: float = 0.0) -> datetime:
        return BEGIN + timedelta(seconds=self._dice.uniform(0, DAYS * 86_400 - margin_s))

    def _worth(self, middle: float = 70.0) -> float:
        return min(max(self._dice.lognormvariate(0, 0.9) * middle, 3.0), 4000.0)

    def _honest(self, shopper: str, orders: int, within_s: float) -> None:
        dice = self._dice
        home, card, begin = dice.choice(_COUNTRIES[:6]), self._card(), self._any_time(within_s)
        middle = self._worth()
        for at_s in sorted(dice.uniform(0, within_s) for _ in range(orders)):
            if dice.random() < 0.02:
                card = self._card()
            country = dice.choice(_COUNTRIES) if dice.random() < 0.04 else home
            self._tries(shopper, begin + timedelta(seconds=at_s), self._worth(middle), country, card, fails=0.08)

    def _office(self, shopper: str) -> None:
        dice = self._dice
        home, card, at = dice.choice(_COUNTRIES[:6]), self._card(), self._any_time(86_400)
        for _ in range(dice.randint(10, 80)):
            self._tries(shopper, at, self._worth(150), home, card, fails=0.15)
            at += timedelta(seconds=dice.expovariate(1 / 120))

    def _tries(self, shopper: str, at: datetime, worth: float, country: str, card: str, *, fails: float) -> None:
        """As honest people do: what was declined or sold out is tried again, often with another card."""
        while not self._order(shopper, at, worth, country, card, fails=fails) and self._dice.random() < 0.8:
            at += timedelta(seconds=self._dice.uniform(5, 120))
            card = self._card() if self._dice.random() < 0.6 else card

    def _tests_cards(self, shopper: str) -> None:
        dice = self._dice
        at, country = self._any_time(86_400), dice.choice(_COUNTRIES)
        for _ in range(dice.randint(5, 30)):
            self._order(shopper, at, self._worth(12), country, self._card(), fails=0.75, fraud=True)
            at += timedelta(seconds=dice.expovariate(1 / 40))

    def _takes_over(self, shopper: str) -> None:
        dice = self._dice
        self._honest(shopper, orders=dice.randint(3, 8), within_s=(DAYS - 3) * 86_400)
        at = BEGIN + timedelta(seconds=dice.uniform((DAYS - 3) * 86_400, (DAYS - 1) * 86_400))
        for _ in range(dice.randint(1, 3)):
            worth = self._worth(70) * dice.uniform(4, 10)
            self._order(shopper, at, worth, dice.choice(_COUNTRIES[6:]), self._card(), fails=0.3, fraud=True)
            at += timedelta(seconds=dice.expovariate(1 / 600))

    def _buys_up(self, shopper: str) -> None:
        dice = self._dice
        at = self._any_time(86_400)
        for _ in range(dice.randint(2, 5)):
            self._order(
                shopper, at, self._worth(500), dice.choice(_COUNTRIES[4:]), self._card(), fails=0.35, fraud=True
            )
            at += timedelta(seconds=dice.expovariate(1 / 900))

    def _card(self) -> str:
        return f"{self._dice.getrandbits(48):012x}"

    def _order(
        self, shopper: str, at: datetime, worth: float, country: str, card: str, *, fails: float, fraud: bool = False
    ) -> bool:
        """Whether it was placed."""
        order_id, cents = f"order-{len(self.cases)}", round(worth * 100)
        pieces = 1 + int(self._dice.expovariate(0.6))
        euros = Money("EUR", Decimal(cents) / 100)
        self.cases.append(Labelled(Question(order_id, shopper, euros, pieces, country, card), at, fraud))
        self._tell(
            at,
            Judged(
                order_id=order_id, shopper=shopper, card=card, country=country, cents=cents, verdict=Verdict.ACCEPT,
                at=at + timedelta(milliseconds=1),
            ),
        )  # fmt: skip
        at += timedelta(seconds=1)
        if self._dice.random() < fails:
            undone = OrderUndone(order_id=order_id, shopper=shopper, reason="declined", reviewed=False, at=at)
            self._tell(at, undone)
            return False
        placed = OrderPlaced(order_id=order_id, shopper=shopper, currency="EUR", total=euros, lines=(), placed_at=at)
        self._tell(at, placed)
        return True

    def _tell(self, at: datetime, event: Event) -> None:
        self.events.append((at, len(self.events), event))
