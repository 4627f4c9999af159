"""Its inside."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from seamline import Batch, Module, batched
from similar.words import Words

module = Module("words", provides=Words)


@module.model(Words, version="one", batch=Batch(max=8), waiting_max=20, warm=[("letters", ("warm",))])
class Spelling:
    def __init__(self) -> None:
        self.loaded = 0

    def load(self) -> None:
        self.loaded += 1

    @batched
    def letters(self, word: list[str]) -> list[dict[str, int] | Exception]:
        assert self.loaded == 1
        if "poison" in word:
            raise RuntimeError("cannot be read")
        return [dict(Counter(each)) if each else ValueError("no word") for each in word]

    @batched
    def batch_of(self, word: list[str]) -> list[int]:
        time.sleep(0.02)
        return [len(word)] * len(word)

    def slow(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def spell(self, word: str, fail_at: int = -1) -> Iterator[str]:
        for place, letter in enumerate(word):
            if place == fail_at:
                raise ValueError("cannot go on")
            yield letter
