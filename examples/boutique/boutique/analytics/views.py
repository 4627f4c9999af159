"""What is counted, of which events. Rows are the shop's memory of a week; nobody's name is in a row for longer."""

from __future__ import annotations

from boutique.analytics import ABANDONED_AFTER_S
from boutique.cart import CartUpdated
from boutique.checkout import OrderPlaced
from boutique.frontend import ProductViewed
from boutique.money import Money
from seamline import Module
from seamline.events.streams import View, count, distinct, materialise, session, sliding, stream, sum_, top_k, tumbling

DAY_S = 86_400
TOP_EVERY_S = 300
TOP_OF_S = 3600
BASKETS_S = 300

placed = stream(OrderPlaced, at=lambda e: e.placed_at)
viewed = stream(ProductViewed, at=lambda e: e.at)
filled = stream(CartUpdated, at=lambda e: e.at, where=lambda e: e.pieces > 0)


def declare(module: Module) -> list[View]:
    """Keep the views in ``module``."""
    return [sales(module), visitors(module), best_sellers(module), visits(module), baskets(module)]


def sales(module: Module) -> View:
    return materialise(
        module,
        "sales_by_minute",
        placed.by(currency=lambda e: e.currency)
        .window(tumbling(60), late_s=600)
        .aggregate(orders=count(), revenue_cents=sum_(lambda e: cents(e.total))),
    )


def visitors(module: Module) -> View:
    return materialise(
        module,
        "visitors_by_minute",
        viewed.window(tumbling(60), late_s=600).aggregate(views=count(), visitors=distinct(lambda e: e.session)),
    )


def best_sellers(module: Module) -> View:
    return materialise(
        module,
        "top_products",
        placed.window(sliding(TOP_OF_S, every_s=TOP_EVERY_S)).aggregate(
            products=top_k(5, pieces_of),
        ),
        keep_s=DAY_S,
    )


def visits(module: Module) -> View:
    return materialise(
        module,
        "visits",
        viewed.by(visitor=lambda e: e.session)
        .merge(placed.by(visitor=lambda e: e.shopper))
        .window(session(1800))
        .aggregate(views=count(lambda e: isinstance(e, ProductViewed)), orders=count(_is_order)),
        keep_s=DAY_S,
    )


def baskets(module: Module) -> View:
    return materialise(
        module,
        "baskets",
        filled.by(shopper=lambda e: e.shopper)
        .join(placed.by(shopper=lambda e: e.shopper), within_s=ABANDONED_AFTER_S, kind="left", latest=True)
        .window(tumbling(BASKETS_S))
        .aggregate(
            ordered=count(lambda pair: pair.right is not None), abandoned=count(lambda pair: pair.right is None)
        ),
    )


def cents(money: Money) -> int:
    """Hundredths of the currency, also of one that has none: exact, and one column for all."""
    return int(money.amount * 100)


def pieces_of(order: OrderPlaced) -> dict[str, int]:
    pieces: dict[str, int] = {}
    for line in order.lines:
        pieces[line.product_id] = pieces.get(line.product_id, 0) + line.quantity
    return pieces


def _is_order(event: ProductViewed | OrderPlaced) -> bool:
    return isinstance(event, OrderPlaced)
