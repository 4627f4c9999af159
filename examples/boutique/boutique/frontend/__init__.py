"""The frontend: the pages of the shop. It has no contract; shoppers speak HTTP."""

from __future__ import annotations

from datetime import datetime

from seamline import Event


class ProductViewed(Event, key="session"):
    """Somebody looked at a product. ``session`` is the shopper, as in the events of cart and checkout."""

    session: str
    product_id: str
    at: datetime
