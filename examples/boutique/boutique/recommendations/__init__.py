"""Recommendations: what else a shopper may like, and why."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from seamline import Contract, readonly, timeout


class Why(StrEnum):
    """What spoke for it most: it is like the others, is bought by the same shoppers, is bought often; or nothing."""

    ALIKE = "alike"
    TOGETHER = "together"
    LIKED = "liked"
    CHANCE = "chance"


@dataclass(frozen=True, slots=True)
class Suggestion:
    product_id: str
    why: Why


@dataclass(frozen=True, slots=True)
class Suggestions:
    """The best first. ``version`` is the model that made them, to be told when one of them is looked at."""

    version: str
    items: tuple[Suggestion, ...]


@dataclass(frozen=True, slots=True)
class Uptake:
    """What became of the suggestions of one version: looked at, and bought within a week of that."""

    version: str
    clicked: int
    bought: int


class Recommendations(Contract):
    @readonly
    async def others(self, product_ids: tuple[str, ...], limit: int = 4) -> tuple[str, ...]:
        """Ids of products that are not among ``product_ids``; the same question has the same answer."""
        ...

    @readonly
    async def suggest(self, product_ids: tuple[str, ...], limit: int = 4) -> Suggestions:
        """The same, and why. The answer changes as orders are learned from."""
        ...


class Uptakes(Contract):
    @readonly
    async def uptake(self) -> tuple[Uptake, ...]:
        """Of each version that somebody followed, of the last month."""
        ...


class Meaning(Contract):
    @timeout(20)
    @readonly
    async def find(self, text: str, limit: int = 4) -> tuple[str, ...]:
        """Ids of the products that are nearest to what ``text`` means, the nearest first; fewer if few are near."""
        ...


class Similar(Contract):
    """Texts that mean alike have vectors whose product is near 1."""

    @timeout(20)
    @readonly
    async def embed(self, text: str) -> tuple[float, ...]:
        """Who asks first waits until the encoder is loaded."""
        ...
