"""Its inside."""

from __future__ import annotations

import random
import time
from pathlib import Path

from guessing.oracle import Alone, Guess
from seamline import Artefacts, Module
from seamline.models.rollout.route import scored

LET_GO = Path(__file__).parents[2] / "let-go"
module = Module("oracle", provides=(Guess, Alone))


@module.model(Guess, version="good")
class Good:
    def guess(self, text: str, user: str) -> tuple[str, str]:
        scored("Guess", "good", random.uniform(0.8, 1.0))
        return "good", text.upper()

    def evaluate(self) -> dict[str, float]:
        return {"recall@10": 0.5, "nDCG@10": 0.25}

    @staticmethod
    def compare(ours: tuple[str, str], theirs: tuple[str, str]) -> bool:
        return ours[1] == theirs[1]


@module.model(Guess, version="worse")
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
