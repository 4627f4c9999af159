"""The frontend: the pages of the shop. Shoppers speak HTTP; the contract is for its own pages."""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

from datetime import datetime

from seamline import Contract, Event


class ProductViewed(Event, key="session"):
    """Somebody looked at a product. ``session`` is the shopper, as in the events of cart and checkout.

    ``via`` is the version of the recommendations that led there; empty if none did.
    """

    session: str
    product_id: str
    at: datetime
    via: str = ""


class Views(Contract):
    async def viewed(self, session: str, product_id: str, via: str = "") -> None:
        """Note that a product was looked at; it is told within moments."""
        ...
