"""How much a language model has still to read and to say, in seconds: what its replicas are chosen by.

It is counted here, where the model's calls come in, so that it is the same for a model in this process, in processes
of its own, and elsewhere. How long a prompt is in tokens, how many tokens are a piece of an answer, how long answers
become and how fast both go is learned from what the engine counts and from when its answers come.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Final

from seamline.kernel.wire.frames import Ahead
from seamline.models.chat import Chat, ChatAnswer, ChatChunk, ChatRequest, Message, Usage
from seamline.module.models import ModelType

MEMORY: Final = 0.9
"""What older measures count when a new one comes."""
_TOKENS_PER_CHARACTER: Final = 0.25
"""Of a prompt, until an engine has counted one."""
_USUAL_TOKENS: Final = 64.0
"""Of an answer, until there was one; and of that which replicas are compared by."""
_BESIDE: Final = 0.1
"""What the work of others weighs beside whom an answer is made, against that which it waits for."""
_MEASURED_PIECES: Final = 8
"""An answer of fewer says little of how fast it goes."""


class Mean:
    """A mean that moves with what comes; None before anything came."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float | None = None

    def learn(self, measured: float) -> None:
        if not (math.isfinite(measured) and measured >= 0):
            return
        self.value = measured if self.value is None else self.value * MEMORY + measured * (1 - MEMORY)

    def or_else(self, unknown: float) -> float:
        return unknown if self.value is None else self.value


class Work:
    """One call, from its begin to its end."""

    __slots__ = (
        "_began", "_characters", "_first_at", "_held_s", "_last_at", "_load", "_pieces", "_undisturbed", "_usage",
        "limit",
    )  # fmt: skip

    def __init__(self, load: TokenLoad, request: ChatRequest, limit: int, undisturbed: bool) -> None:
        self._load = load
        self.limit = limit
        """Tokens that its answer has at most; 0 is unknown."""
        self._characters = len(request.prompt) + sum(map(_characters, request.messages))
        self._undisturbed = undisturbed
        self._began = load.now()
        self._first_at = self._last_at = 0.0
        self._held_s = 0.0
        """How long the reader had the pieces before it wanted the next."""
        self._pieces = 0
        self._usage: Usage | None = None

    @property
    def begun(self) -> bool:
        """Whether some of its answer has come."""
        return self._pieces > 0

    @property
    def unread(self) -> float:
        """Tokens of the prompt, until the answer has begun."""
        return 0.0 if self._pieces else self._characters * self._load.per_character.or_else(_TOKENS_PER_CHARACTER)

    @property
    def unsaid(self) -> float:
        """Tokens that are likely still to come. Who has outlived what is usual goes on for half as long again."""
        said = self._pieces * self._load.per_piece.or_else(1.0)
        left = max(self._load.usual(self.limit) - said, said / 2)
        return max(min(left, self.limit - said), 0.0) if self.limit else left

    def passed(self, chunk: ChatChunk) -> None:
        """A piece of the answer has come."""
        self._last_at = self._load.now()
        if chunk.text or chunk.tool_calls or chunk.refusal:
            if not self._pieces:
                self._first_at = self._last_at
            self._pieces += 1
        if chunk.usage is not None:
            self._usage = chunk.usage

    def read_on(self) -> None:
        """The reader wants the next piece."""
        self._held_s += self._load.now() - self._last_at

    def answered(self, answer: ChatAnswer) -> None:
        """The whole answer has come at once."""
        self._usage = answer.usage

    def end(self) -> None:
        """It is over, however. What it took is learned if it came to its end."""
        self._load.forget(self)
        usage, load = self._usage, self._load
        if usage is None:
            return
        if usage.input_tokens > 0 and self._characters:
            load.per_character.learn(usage.input_tokens / self._characters)
        if usage.output_tokens <= 0:
            return
        load.learn_length(self.limit, usage.output_tokens)
        if self._pieces:
            load.per_piece.learn(usage.output_tokens / self._pieces)
            said_s = self._last_at - self._first_at
            if self._pieces >= _MEASURED_PIECES and self._held_s <= said_s / 2:  # it is the engine that was waited for
                load.say_s.learn((said_s - self._held_s) / (usage.output_tokens * (1 - 1 / self._pieces)))
            if self._undisturbed and usage.input_tokens > usage.cached_input_tokens:
                load.read_s.learn((self._first_at - self._began) / usage.input_tokens)
        elif self._undisturbed:
            load.say_s.learn((load.now() - self._began) / usage.output_tokens)


class TokenLoad:
    """What one version of a model has to do in this process.

    Args:
        places: answers that are made at once; who comes then waits.
        tokens_max: of an answer, where a request does not say; 0 is unknown.
        now: the time in seconds.
    """

    def __init__(self, places: int, tokens_max: int = 0, *, now: Callable[[], float] = monotonic) -> None:
        self.now = now
        self.places = max(places, 1)
        self._tokens_max = tokens_max
        self._works: dict[Work, None] = {}
        self._lengths: dict[int, Mean] = {}
        """Of answers, by the power of two that the limit is below: who asks for more is told more."""
        self.per_character = Mean()
        self.per_piece = Mean()
        self.read_s = Mean()
        """For a token of a prompt."""
        self.say_s = Mean()
        """For a token of one answer, however many others are made at the same time."""

    @staticmethod
    def of(model: ModelType, now: Callable[[], float] = monotonic) -> TokenLoad | None:
        """None for a model that does not answer as :class:`~seamline.models.chat.Chat` does."""
        if not issubclass(model.contract, Chat):
            return None
        slots, tokens_max = getattr(model.cls, "slots", 0), getattr(model.cls, "tokens_max", 0)
        own = slots * (model.workers.count if model.runs_in == "process" else 1) if isinstance(slots, int) else 0
        limit = tokens_max if isinstance(tokens_max, int) else 0
        return TokenLoad(min(own or model.slots, model.slots), limit, now=now)

    def begin(self, arguments: Sequence[Any], *, cold: bool = False) -> Work:
        """A call has come; it must be ended. ``cold`` is one that waits until the model is loaded."""
        request = next((each for each in arguments if isinstance(each, ChatRequest)), ChatRequest())
        limit = max(request.tokens_max or self._tokens_max, 0)
        work = Work(self, request, limit, len(self._works) < self.places and not cold)
        self._works[work] = None
        return work

    def forget(self, work: Work) -> None:
        self._works.pop(work, None)

    def usual(self, limit: int) -> float:
        """Tokens of an answer that may have so many."""
        mean = self._lengths.get(_size(limit))
        usual = _USUAL_TOKENS if mean is None else mean.or_else(_USUAL_TOKENS)
        return min(usual, limit) if limit else usual

    def learn_length(self, limit: int, tokens: int) -> None:
        self._lengths.setdefault(_size(limit), Mean()).learn(tokens)

    def stats(self) -> dict[str, int]:
        """Tokens still to be read, and likely still to be said; for JSON."""
        return {
            "unread": round(sum(each.unread for each in self._works)),
            "unsaid": round(sum(each.unsaid for each in self._works)),
        }

    def ahead(self) -> Ahead | None:
        """What one more call has before it; None until an answer has been timed."""
        say_s = self.say_s.value
        if say_s is None:
            return None
        read_s = self.read_s.or_else(0.0)
        # Answers are made beside one another, in places that are taken in turn; prompts are read one after the other.
        works = sorted(self._works, key=_not_begun)
        each_s = [work.unread * read_s + work.unsaid * say_s for work in works]
        wait_s = max(_free_in_s(each_s, self.places), sum(work.unread for work in works) * read_s)
        # One length for every replica: what it was asked for of late says nothing of how fast it is.
        answer_s = _USUAL_TOKENS * say_s
        return Ahead(
            wait_s=wait_s + _BESIDE * sum(each_s) / self.places,
            serve_s=answer_s,
            each_s=answer_s / self.places,
        )


def _not_begun(work: Work) -> bool:
    return not work.begun


def _free_in_s(each_s: Sequence[float], places: int) -> float:
    """When a place is free for one more, if each takes so long and all are served in turn."""
    if len(each_s) < places:
        return 0.0
    free = list(each_s[:places])
    heapq.heapify(free)
    for work_s in each_s[places:]:
        heapq.heapreplace(free, free[0] + work_s)
    return free[0]


def _size(limit: int) -> int:
    return min(limit.bit_length(), 32)


def _characters(message: Message) -> int:
    return len(message.content) + sum(len(part.text) for part in message.parts)
