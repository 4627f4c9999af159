"""What explanation is given, and what it gives back."""

from __future__ import annotations

from typing import Protocol

import msgspec

from seamline.observe.incidents import Suspect
from seamline.observe.records import Span


class Explanation(msgspec.Struct, frozen=True):
    """The likeliest cause first. Where it abstains, ``reason`` says what is missing, and ``suspects`` may be hints."""

    suspects: list[Suspect] = []
    abstained: bool = True
    reason: str = ""
    confidence: float = 0.0
    """0 to 1: how far the first stands above chance and above the second."""


class Traces(Protocol):
    """Some traces in which ``module`` had work: of failed spans of its own, or of its slowest."""

    def __call__(self, module: str, *, failed: bool, since_ns: int, until_ns: int) -> list[list[Span]]: ...


class Profiles(Protocol):
    """Stacks of a module and the CPU in nanoseconds that each used, biggest first."""

    def __call__(self, module: str, since_ns: int, until_ns: int) -> list[tuple[str, int]]: ...
