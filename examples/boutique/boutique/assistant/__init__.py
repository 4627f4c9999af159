"""The assistant: somebody at the counter who knows the shelf, and the language model behind them."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal

from seamline import Contract, Fault
from seamline.models.chat import Chat

QUESTION_MAX = 400
"""Characters of one question."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What somebody said: the shopper, or the assistant."""

    who: Literal["shopper", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer as it comes; the last one names the model and counts its tokens."""

    text: str = ""
    model: str = ""
    tokens: int = 0


class QuestionRefused(Fault):
    """There is no question, or it is longer than ``QUESTION_MAX``."""

    length: int


class ShopTalk(Chat):
    """The language model: a tiny one, trained on this project's own text, unless the settings name another."""


class Assistant(Contract):
    def answer(self, turns: tuple[Turn, ...]) -> AsyncGenerator[Piece]:
        """What the assistant says to the last turn, which is the shopper's. Raises ``QuestionRefused``."""
        ...
