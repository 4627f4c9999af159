"""The pages of the shop: the example's templates, filled from the other services over httpx.

A page's calls are made one after the other, as the example makes them. Making the independent ones together
(``asyncio.gather``) was measured: on one core it cost a third more CPU and latency, because httpx then keeps more
connections and spends its time on their pool.
"""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Annotated, TypeVar

import httpx
from fastapi import FastAPI, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import TypeAdapter

from benchmarks.peers.boutique_fastapi.forms import EXAMPLE, CheckoutForm
from benchmarks.peers.boutique_fastapi.models import (
    Ad,
    CartContents,
    CartLine,
    Conversion,
    Destination,
    Letter,
    Money,
    Order,
    Product,
    Quantity,
    Quote,
    Stop,
)
from benchmarks.peers.boutique_fastapi.pages import Head, Pages
from benchmarks.peers.boutique_fastapi.platform import Others, Refused, Services, Settings, service

T = TypeVar("T")

KINDS = ("kitchen", "table", "home", "light", "garden", "desk", "wear", "travel")
QUANTITY_MAX = 20
CURRENCY_FIRST, COUNTRY_FIRST = "EUR", "BE"
_SHOPPER = re.compile(r"[A-Za-z0-9_-]{8,64}")
_MONTH_S = 30 * 24 * 3600
_EMPTY = CartContents(version=0, lines=())

_PRODUCTS = TypeAdapter(tuple[Product, ...])
_PRODUCT = TypeAdapter(Product)
_MONEY = TypeAdapter(Money)
_AD = TypeAdapter(Ad)
_CART = TypeAdapter(CartContents)
_NAMES = TypeAdapter(tuple[str, ...])
_DESTINATIONS = TypeAdapter(tuple[Destination, ...])
_QUOTE = TypeAdapter(Quote)
_ORDER = TypeAdapter(Order)
_STOPS = TypeAdapter(tuple[Stop, ...])
_LETTER = TypeAdapter(Letter)
_NOTHING = TypeAdapter(None)

_NOTICES = {
    "quantity": f"One bag takes between one and {QUANTITY_MAX} pieces of a thing.",
    "changed": "Your bag has changed since you went to the till. Please look at it again.",
}


@dataclass(frozen=True, slots=True)
class Item:
    product: Product
    quantity: int
    price: Money

    stock: str = ""
    """This shop keeps no stock, sends no reminders and tells nobody of its events."""

    @property
    def sum(self) -> Money:
        return self.price * self.quantity


@dataclass(frozen=True, slots=True)
class Bag:
    contents: CartContents
    items: tuple[Item, ...]
    country: Destination
    destinations: tuple[Destination, ...]
    quote: Quote
    things: Money
    shipping: Money
    total: Money


def create(settings: Settings) -> FastAPI:
    sys.path.insert(0, str(settings.example))
    from boutique.frontend.files import StaticFiles

    app = service("frontend", settings)
    folder = settings.example / "boutique" / "frontend"
    static = StaticFiles(folder / "static", "/static")
    pages = Pages(folder / "templates", static.url)
    app.mount("/static", static)
    _shopping(app, pages)
    _till(app, pages)
    return app


def _shopping(app: FastAPI, pages: Pages) -> None:
    @app.get("/")
    async def home(request: Request, services: Others) -> Response:
        around = await _head(request, services)
        products = await services.get("catalog", "/products", _PRODUCTS)
        ad = await _extra(services.get("ads", "/ads", _AD, categories=[""]))
        things = await _priced(services, products, around.currency)
        response = pages.page("home.html", around, things=things, kinds=KINDS, ad=ad)
        if _shopper(request) is None:
            _remember(response, "shopper", secrets.token_urlsafe(18))
        return response

    @app.get("/product/{product_id}")
    async def product(product_id: str, request: Request, services: Others) -> Response:
        found = await _product(services, product_id)
        around = await _head(request, services)
        price = await _convert(services, found.price, around.currency)
        others = await _goes_with(services, (found.id,))
        ad = await _extra(services.get("ads", "/ads", _AD, categories=list(found.categories)))
        return pages.page(
            "product.html", around, product=found, price=price, stock="", sold_out=False, others=others, ad=ad
        )

    @app.get("/search")
    async def search(request: Request, services: Others, q: str = "") -> Response:
        query = q.strip()[:80]
        around = await _head(request, services)
        found = await services.get("catalog", "/search", _PRODUCTS, query=query) if query else ()
        things = await _priced(services, found, around.currency)
        return pages.page("search.html", around, query=query, things=things)

    @app.post("/currency")
    async def set_currency(
        services: Others, currency: Annotated[str, Form()] = "", back: Annotated[str, Form()] = "/"
    ) -> Response:
        known = await services.get("currency", "/currencies", _NAMES)
        safe = back.startswith("/") and not back.startswith(("//", "/\\")) and back.isprintable()
        response = _redirect(back if safe else "/")
        _remember(response, "currency", currency if currency in known else CURRENCY_FIRST)
        return response

    @app.get("/cart")
    async def cart(
        request: Request, services: Others, notice: Annotated[str, Query()] = "", country: str = ""
    ) -> Response:
        bag = await _bag(request, services)
        around = await _head(request, services, bag.contents)
        others = await _goes_with(services, tuple(item.product.id for item in bag.items))
        response = pages.page(
            "cart.html",
            around,
            items=bag.items,
            things_sum=bag.things,
            shipping=bag.shipping,
            total=bag.total,
            country=bag.country,
            destinations=bag.destinations,
            days=f"Between {bag.quote.days_min} and {bag.quote.days_max} working days.",
            quantity_max=QUANTITY_MAX,
            notice=_NOTICES.get(notice, ""),
            reminded=False,
            others=others,
        )
        if country == bag.country.code:
            _remember(response, "country", bag.country.code)
        return response

    @app.post("/cart")
    async def add_to_cart(
        request: Request,
        services: Others,
        product_id: Annotated[str, Form()],
        quantity: Annotated[int, Form()] = 1,
    ) -> Response:
        found = await _product(services, product_id)
        shopper = _shopper(request) or secrets.token_urlsafe(18)
        line = CartLine(product_id=found.id, quantity=quantity)
        path = "/cart"
        try:
            await services.send("POST", "cart", f"/carts/{shopper}/lines", line, _CART)
        except Refused:
            path = "/cart?notice=quantity"
        response = _redirect(path)
        _remember(response, "shopper", shopper)
        return response

    @app.post("/cart/change")
    async def change_cart(
        request: Request,
        services: Others,
        product_id: Annotated[str, Form()],
        quantity: Annotated[int, Form()] = 1,
        remove: Annotated[str | None, Form()] = None,
    ) -> Response:
        shopper = _shopper(request)
        if shopper is None:
            return _redirect("/cart")
        change = Quantity(quantity=0 if remove is not None else quantity)
        try:
            await services.send("PUT", "cart", f"/carts/{shopper}/lines/{product_id}", change, _CART)
        except Refused:
            return _redirect("/cart?notice=quantity")
        return _redirect("/cart")

    @app.post("/cart/empty")
    async def empty_cart(request: Request, services: Others) -> Response:
        shopper = _shopper(request)
        if shopper is not None:
            await services.send("DELETE", "cart", f"/carts/{shopper}", None, _NOTHING)
        return _redirect("/cart")


def _till(app: FastAPI, pages: Pages) -> None:
    async def till(request: Request, services: Services, typed: CheckoutForm, status: int = 200) -> Response:
        bag = await _bag(request, services)
        if not bag.items:
            return _redirect("/cart")
        rows = [(f"{item.quantity} × {item.product.name}", item.sum) for item in bag.items]  # noqa: RUF001
        return pages.page(
            "checkout.html",
            await _head(request, services, bag.contents),
            status=status,
            form=typed,
            rows=[*rows, (f"Shipping to {bag.country.name}", bag.shipping)],
            total=bag.total,
            country=bag.country,
            version=bag.contents.version,
        )

    @app.get("/checkout")
    async def checkout(request: Request, services: Others) -> Response:
        return await till(request, services, CheckoutForm(EXAMPLE))

    @app.post("/checkout")
    async def place_order(request: Request, services: Others) -> Response:
        fields, shopper = await request.form(), _shopper(request)
        if shopper is None:
            return _redirect("/cart")
        typed = CheckoutForm({name: str(value) for name, value in fields.items()})
        purchase = typed.purchase(shopper)
        if purchase is None:
            return await till(request, services, typed, 422)
        key = f"{shopper}.{purchase.cart_version}"
        try:
            placed = await services.send("PUT", "checkout", f"/orders/by-key/{key}", purchase, _ORDER)
        except Refused as refused:
            if refused.status == 402:
                typed.declined(refused.detail)
            elif refused.status in {404, 409}:
                return _redirect("/cart?notice=changed")
            else:
                typed.refused(str(refused.detail), "Please choose again in your bag.")
            return await till(request, services, typed, 422)
        return _redirect(f"/order/{placed.id}")

    @app.get("/order/{order_id}")
    async def order(order_id: str, request: Request, services: Others) -> Response:
        placed = await services.get("checkout", f"/orders/{order_id}", _ORDER)
        around = await _head(request, services)
        query = {"tracking_id": placed.tracking_id, "country": placed.address.country}
        stops = await services.get("shipping", "/route", _STOPS, **query)
        others = await _goes_with(services, tuple(line.product_id for line in placed.lines))
        rows = [(f"{line.quantity} × {line.name}", line.price * line.quantity) for line in placed.lines]  # noqa: RUF001
        rows.append(("Shipping", placed.shipping))
        return pages.page("order.html", around, order=placed, rows=rows, stops=stops, others=others)

    @app.get("/order/{order_id}/letter")
    async def letter(order_id: str, request: Request, services: Others) -> Response:
        written = await services.get("emails", f"/confirmations/{order_id}", _LETTER)
        around = await _head(request, services)
        back = f"/order/{order_id}"
        return pages.page("letter.html", around, letter=written, back=back, back_to="Back to the order")


async def _head(request: Request, services: Services, cart: CartContents | None = None) -> Head:
    currencies = await services.get("currency", "/currencies", _NAMES)
    contents = await _cart(request, services) if cart is None else cart
    chosen = request.cookies.get("currency", CURRENCY_FIRST)
    query = request.url.query
    path = f"{request.url.path}?{query}" if query else request.url.path
    return Head(
        path=path if request.method == "GET" else "/",
        currency=chosen if chosen in currencies else CURRENCY_FIRST,
        currencies=currencies,
        pieces=contents.pieces,
        place="",
    )


async def _bag(request: Request, services: Services) -> Bag:
    contents = await _cart(request, services)
    known = await services.get("currency", "/currencies", _NAMES)
    destinations = await services.get("shipping", "/destinations", _DESTINATIONS)
    chosen = request.cookies.get("currency", CURRENCY_FIRST)
    code = chosen if chosen in known else CURRENCY_FIRST
    wanted = request.query_params.get("country") or request.cookies.get("country", COUNTRY_FIRST)
    by_code = {destination.code: destination for destination in destinations}
    country = by_code.get(wanted) or by_code[COUNTRY_FIRST]
    products = [await _product(services, line.product_id) for line in contents.lines]
    prices = [await _convert(services, found.price, code) for found in products]
    quote = await services.get("shipping", "/quote", _QUOTE, pieces=contents.pieces, country=country.code)
    cost = await _convert(services, quote.cost, code)
    items = tuple(
        Item(found, line.quantity, price) for found, line, price in zip(products, contents.lines, prices, strict=True)
    )
    things = Money(currency=code, amount=cost.amount * 0)
    for item in items:
        things += item.sum
    return Bag(contents, items, country, destinations, quote, things, cost, things + cost)


async def _cart(request: Request, services: Services) -> CartContents:
    shopper = _shopper(request)
    return _EMPTY if shopper is None else await services.get("cart", f"/carts/{shopper}", _CART)


async def _product(services: Services, product_id: str) -> Product:
    return await services.get("catalog", f"/products/{product_id}", _PRODUCT)


async def _priced(services: Services, products: tuple[Product, ...], currency: str) -> list[tuple[Product, Money]]:
    prices = [await _convert(services, found.price, currency) for found in products]
    return list(zip(products, prices, strict=True))


async def _convert(services: Services, money: Money, to: str) -> Money:
    return await services.send("POST", "currency", "/convert", Conversion(money=money, to=to), _MONEY)


async def _goes_with(services: Services, product_ids: tuple[str, ...]) -> list[Product]:
    asked = services.get("recommendations", "/recommendations", _NAMES, product_ids=list(product_ids))
    ids = await _extra(asked) or ()
    return [await _product(services, product_id) for product_id in ids]


async def _extra(call: Awaitable[T]) -> T | None:
    """The answer of a part that a page can do without."""
    try:
        return await call
    except (Refused, httpx.HTTPError):
        return None


def _shopper(request: Request) -> str | None:
    found = request.cookies.get("shopper", "")
    return found if _SHOPPER.fullmatch(found) else None


def _redirect(path: str) -> Response:
    return RedirectResponse(path, 303)


def _remember(response: Response, name: str, value: str) -> None:
    response.set_cookie(name, value, _MONTH_S, httponly=True, samesite="lax")
