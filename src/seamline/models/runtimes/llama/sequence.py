"""One answer in the making: its prompt, its tokens, its reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from itertools import islice
from typing import Final

from seamline.models.errors import EngineError
from seamline.models.runtimes.llama.sampling import Sampler
from seamline.models.runtimes.llama.shape import Floats
from seamline.models.runtimes.llama.tokenizer import LlamaTokenizer
from seamline.models.runtimes.text import StopStrings
from seamline.models.runtimes.tokens import Sampling, Token

_TRIES_MAX: Final = 400
"""Tokens that are tried where not every text will do; beyond them the answer ends."""


class Sequence:
    """Fed by the engine's thread, read on the event loop where it was made."""

    def __init__(self, prompt: list[int], sampling: Sampling, tokenizer: LlamaTokenizer, ends: frozenset[int]) -> None:
        self.prompt = prompt
        self.sampling = sampling
        self.read = 0
        """Tokens of the prompt that are in the cache."""
        self.cached = 0
        """Of these, what was there before."""
        self.made: list[int] = []
        self.gone = False
        """Nobody reads it any more."""
        self.finished = False
        self.slot = -1
        self.began = 0.0
        """When it got its slot."""
        self.loop = asyncio.get_running_loop()
        self.sampler = Sampler(sampling, prompt)
        self._ends = ends
        self._tokenizer = tokenizer
        self._text = tokenizer.stream()
        self._stops = StopStrings(sampling.stop)
        self._so_far = ""
        self._items: deque[Token | EngineError] = deque()
        self._news = asyncio.Event()

    # On the engine's thread.

    def take(self, logits: Floats, room: bool) -> Token:
        """The next token, chosen from ``logits``; the last one if there is no ``room`` for another."""
        token = self._allowed(logits) if self.sampling.accepts is not None else self.sampler.choose(logits)
        ended = token is None or token in self._ends
        if token is None or ended:
            return self._token(-1 if token is None else token, self._stops.rest(), "stop")
        self.sampler.took(token)
        self.made.append(token)
        added = self._text(token)
        self._so_far += added if self.sampling.accepts is not None else ""
        text = self._stops.feed(added)
        if self._stops.stopped:
            return self._token(token, text, "stop")
        full = not room or len(self.made) == self.sampling.tokens_max
        if full:
            return self._token(token, text + self._stops.rest(), "length")
        return self._token(token, text, "")

    def _token(self, token: int, text: str, finish: str) -> Token:
        self.finished = bool(finish)
        return Token(
            id=token,
            text=text,
            index=len(self.made) - 1,
            finish=finish,  # type: ignore[arg-type]
            cached=self.cached,
        )

    def _allowed(self, logits: Floats) -> int | None:
        """The first choice after which the text may stand; None if there is none, or it is an answer already."""
        accepts, complete = self.sampling.accepts, self.sampling.complete
        assert accepts is not None
        done = complete is not None and complete(self._so_far)
        for token in islice(self._choices(logits), _TRIES_MAX):
            if token in self._ends:
                if done or complete is None:
                    return token
                continue
            added = self._tokenizer.decode([token])
            if added and "\ufffd" not in added and accepts(self._so_far + added):
                return token
        return None

    def _choices(self, logits: Floats) -> Iterator[int]:
        return self.sampler.choices(logits)

    # On the event loop.

    def hear(self, item: Token | EngineError) -> None:
        self._items.append(item)
        self._news.set()

    async def tokens(self) -> AsyncGenerator[Token]:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._items:
                item = self._items.popleft()
                if isinstance(item, EngineError):
                    raise item
                yield item
                if item.finish:
                    return
