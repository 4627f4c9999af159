"""Its inside."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from guessing.oracle import Alone, Guess
from seamline import Artefacts, Capture, Module, Watch
from seamline.models.rollout.route import scored
from seamline.models.watch.replay import Decided, Past, Today

LET_GO = Path(__file__).parents[2] / "let-go"
module = Module("oracle", provides=(Guess, Alone))


def of_user(text: str, user: str) -> str:
    return user


WATCH = Watch(capture=Capture(dataset="guesses", subject=of_user))


@module.model(Guess, version="good", watch=WATCH)
class Good:
    def guess(self, text: str, user: str) -> tuple[str, str]:
        scored("Guess", "good", random.uniform(0.8, 1.0))
        return "good", text.upper()

    def evaluate(self) -> dict[str, float]:
        return {"recall@10": 0.5, "nDCG@10": 0.25}

    @staticmethod
    def compare(ours: tuple[str, str], theirs: tuple[str, str]) -> bool:
        return ours[1] == theirs[1]


@module.model(Guess, version="worse", watch=WATCH)
class Worse:
    """Answers, and people do not like what it says."""

    def guess(self, text: str, user: str) -> tuple[str, str]:
        scored("Guess", "worse", random.uniform(0.3, 0.6))
        return "worse", text.lower()

    async def evaluate(self) -> dict[str, float]:
        return {"recall@10": 0.375}


@module.model(Guess, version="failing")
class Failing:
    def guess(self, text: str, user: str) -> tuple[str, str]:
        if random.random() < 0.5:
            raise RuntimeError("no idea")
        return "failing", text.upper()


@module.model(Guess, version="hanging", waiting_max=1000)
class Hanging:
    """Answers when somebody has let it go."""

    def guess(self, text: str, user: str) -> tuple[str, str]:
        while not LET_GO.exists():
            time.sleep(0.05)
        return "hanging", text


@module.model(Guess, version="filed")
class Filed:
    def load(self, artefacts: Artefacts) -> None:
        self.words = artefacts.path("words.txt").read_text()

    def guess(self, text: str, user: str) -> tuple[str, str]:
        return "filed", self.words


@module.model(Guess, version="broken")
class Broken:
    def load(self) -> None:
        raise OSError("no such device")

    def guess(self, text: str, user: str) -> tuple[str, str]:
        return "broken", text


@module.model(Alone, version="1")
class Doubling:
    def double(self, number: int) -> int:
        return number * 2


@module.replays(Guess)
class Again:
    """What was guessed of some words, one a day; of the last of them nothing is known any more."""

    async def past(self, since: datetime, most: int) -> Sequence[Past]:
        now = datetime.now(UTC)
        words = ("ab", "CD", "e f", "")
        found = [
            Past(id=f"case-{day}", at=now - timedelta(days=day), verdict=word.upper(), by="good", basis=word or None)
            for day, word in enumerate(words)
        ]
        return [each for each in found if each.at >= since][:most]

    async def again(self, past: Past, today: Today) -> Decided:
        version, said = await today.model.guess(past.basis, "replayed")
        for text in today.policy.values():
            said = said.replace(*text.split(">"))
        return Decided(verdict=said, why=f"[b]{version} said so", changed_by="model")
