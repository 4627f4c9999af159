"""The pages of the shop, as an ordinary Starlette app."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Mount, Route

from boutique.frontend import failures, shopping, till
from boutique.frontend.render import static_files

app = Starlette(
    routes=[
        Route("/", shopping.home),
        Route("/product/{product_id}", shopping.product),
        Route("/search", shopping.search),
        Route("/currency", shopping.set_currency, methods=["POST"]),
        Route("/cart", shopping.cart),
        Route("/cart", shopping.add_to_cart, methods=["POST"]),
        Route("/cart/change", shopping.change_cart, methods=["POST"]),
        Route("/cart/empty", shopping.empty_cart, methods=["POST"]),
        Route("/cart/letter", till.reminder),
        Route("/checkout", till.checkout),
        Route("/checkout", till.place_order, methods=["POST"]),
        Route("/order/{order_id}", till.order),
        Route("/order/{order_id}/letter", till.letter),
        Mount("/static", static_files),
    ],
    exception_handlers=failures.HANDLERS,
)
