"""The one face of whatever makes text token by token: tokens in, tokens out, many streams at once."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Literal, Protocol


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen, and when it ends."""

    tokens_max: int = 0
    """Zero is as many as the context has room for."""
    temperature: float = 0.0
    """Zero always takes the likeliest."""
    top_p: float = 1.0
    """Only from the likeliest tokens that have this probability together (nucleus sampling)."""
    top_k: int = 0
    """Only from so many likeliest tokens; zero is all."""
    repetition_penalty: float = 1.0
    """Above one, tokens that were there before are less likely (as in CTRL, Keskar et al. 2019)."""
    seed: int | None = None
    stop: tuple[str, ...] = ()
    """Strings that end the answer, and are no part of it."""
    accepts: Callable[[str], bool] | None = None
    """Whether the answer may begin with this text; a token after which it may not is never taken."""
    complete: Callable[[str], bool] | None = None
    """Whether a text that ``accepts`` is an answer as it stands; before that, it does not end by itself."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One step of an answer."""

    id: int
    text: str
    """What can be shown now: never half of a character, nor what may be the beginning of a stop string."""
    index: int
    finish: Literal["", "stop", "length"] = ""
    """Of the last one, why it is the last."""
    cached: int = 0
    """Of the first one: tokens of the prompt that were not computed again."""


class TextTokenizer(Protocol):
    """Between texts and a model's own tokens."""

    def encode(self, text: str) -> list[int]:
        """Markers of turns, such as ``<|im_end|>``, are recognised."""
        ...

    def stream(self) -> Callable[[int], str]:
        """For one answer: gives the text that a token adds, or nothing while a character is incomplete."""
        ...

    @property
    def template(self) -> str:
        """Jinja, as Hugging Face's ``chat_template``; empty if there is none."""
        ...

    @property
    def specials(self) -> Mapping[str, str]:
        """What the template may ask for: ``bos_token``, ``eos_token``."""
        ...


class TokenEngine(Protocol):
    """Answers many prompts at once."""

    @property
    def tokenizer(self) -> TextTokenizer: ...

    @property
    def context(self) -> int:
        """Tokens of a prompt and its answer together, at most."""
        ...

    def generate(self, prompt: Sequence[int], sampling: Sampling) -> AsyncGenerator[Token]:
        """The tokens of an answer. Closing it, or being cancelled, ends the work and frees its place.

        Raises:
            EngineRefused: the prompt does not fit.
            Overloaded: too many wait.
        """
        ...

    def close(self) -> None:
        """Blocks until its thread has ended; streams under way end with EngineUnreachable."""
        ...
