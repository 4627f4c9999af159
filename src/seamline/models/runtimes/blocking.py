"""An engine of tokens out of a library that computes an answer in a loop of its own, and blocks."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import Any

from seamline.models.errors import EngineRefused, EngineUnreachable
from seamline.models.runtimes.text import StopStrings
from seamline.models.runtimes.tokens import Sampling, TextTokenizer, Token
from seamline.models.serving.streaming import iterate


class BlockingEngine:
    """See :class:`~seamline.models.runtimes.tokens.TokenEngine`. Derive from it and write ``ids``.

    Args:
        name: for errors.
        tokenizer: the model's.
        context: tokens of a prompt and its answer, at most.
        ends: tokens that end an answer.
        at_once: answers that the library may make at the same time; others wait.
    """

    def __init__(
        self, name: str, tokenizer: TextTokenizer, *, context: int, ends: Sequence[int], at_once: int = 1
    ) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.context = context
        self._ends = frozenset(ends)
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix=f"model {name}")
        self._closed = threading.Event()
        self._under_way = 0
        self._answers = 0

    def ids(self, prompt: Sequence[int], sampling: Sampling, tokens_max: int) -> Iterator[int]:
        """The tokens of an answer as they are made, in a thread. It is closed when nobody wants more."""
        raise NotImplementedError

    async def generate(self, prompt: Sequence[int], sampling: Sampling) -> AsyncGenerator[Token]:
        if not 0 < len(prompt) < self.context:
            refusal = EngineRefused(
                f"the prompt has {len(prompt)} tokens, and {self.name} has room for {self.context - 1}",
                "Send less of the conversation.",
            )
            refusal.status, refusal.kind = 400, "context_length_exceeded"
            raise refusal
        if sampling.accepts is not None:
            raise EngineRefused(f"{self.name} cannot bind its answers to a schema", "Run it with LlamaChat.")
        if self._closed.is_set():
            raise EngineUnreachable(f"{self.name} is closed", "")
        self._under_way += 1
        try:
            async with aclosing(iterate(partial(self._tokens, prompt, sampling), self._threads)) as tokens:
                async for token in tokens:
                    yield token
        finally:
            self._under_way -= 1
            self._answers += 1

    def stats(self) -> dict[str, Any]:
        return {"under_way": self._under_way, "answers": self._answers, "context": self.context}

    def close(self) -> None:
        self._closed.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _tokens(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[Token]:
        room = self.context - len(prompt)
        tokens_max = min(sampling.tokens_max or room, room)
        text, stops = self.tokenizer.stream(), StopStrings(sampling.stop)
        count = 0
        for token in self.ids(prompt, sampling, tokens_max):
            if self._closed.is_set():
                raise EngineUnreachable(f"{self.name} was closed", "")
            if token in self._ends:
                break
            shown = stops.feed(text(token))
            if stops.stopped:
                yield Token(id=token, text=shown, index=count, finish="stop")
                return
            count += 1
            if count == tokens_max:
                yield Token(id=token, text=shown + stops.rest(), index=count - 1, finish="length")
                return
            yield Token(id=token, text=shown, index=count - 1)
        yield Token(id=-1, text=stops.rest(), index=count, finish="stop")
