"""The catalog: what the shop sells."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from dataclasses import dataclass

from boutique.money import Money
from seamline import Contract, Fault, readonly


@dataclass(frozen=True, slots=True)
class Product:
    """One thing on the shelf. ``price`` is in euros; ``picture`` is a file name."""

    id: str
    name: str
    tagline: str
    description: str
    categories: tuple[str, ...]
    price: Money
    picture: str
    details: tuple[str, ...] = ()


class ProductNotFound(Fault):
    """The shop sells nothing under this id."""

    product_id: str


class Catalog(Contract):
    @readonly
    async def list_products(self) -> tuple[Product, ...]:
        """Every product, in the order of the shelf."""
        ...

    @readonly
    async def product(self, product_id: str) -> Product:
        """One product. Raises ``ProductNotFound``."""
        ...

    @readonly
    async def search(self, query: str) -> tuple[Product, ...]:
        """Products in which every word of ``query`` begins a word, best match first."""
        ...
