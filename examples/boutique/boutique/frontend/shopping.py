"""Looking around and filling the bag."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from boutique.ads import Ads
from boutique.cart import QUANTITY_MAX, Cart, CartContents, QuantityRefused
from boutique.catalog import Catalog, Product, ProductNotFound
from boutique.currency import Currency
from boutique.emails import Emails
from boutique.frontend import Views
from boutique.frontend.render import page, stock_note
from boutique.frontend.together import each
from boutique.frontend.visit import (
    COUNTRY_FIRST,
    CURRENCY_FIRST,
    cart_of,
    form,
    head,
    here,
    new_shopper,
    redirect,
    remember,
    shopper_of,
)
from boutique.inventory import Inventory, StockLevel
from boutique.money import Money
from boutique.recommendations import Meaning, Recommendations, Why
from boutique.shipping import CountryNotServed, Destination, Quote, Shipping
from seamline import CallError, use

T = TypeVar("T")

_VIA_MAX = 64
KINDS = ("kitchen", "table", "home", "light", "garden", "desk", "wear", "travel")

_ads, _cart, _catalog, _currency = use(Ads), use(Cart), use(Catalog), use(Currency)
_emails, _views = use(Emails), use(Views)
_inventory, _recommendations, _shipping = use(Inventory), use(Recommendations), use(Shipping)
_meaning = use(Meaning)


async def home(request: Request) -> Response:
    around = await head(request)
    things = await priced(await (await _catalog()).list_products(), around.currency)
    ad = await extra((await _ads()).choose(()))
    response = page("home.html", around, things=things, kinds=KINDS, ad=ad)
    if shopper_of(request) is None:
        remember(request, response, "shopper", new_shopper())
    return response


async def product(request: Request) -> Response:
    found = await (await _catalog()).product(request.path_params["product_id"])
    around = await head(request)
    price = await (await _currency()).convert(found.price, around.currency)
    left = (await stock_of((found.id,))).get(found.id)
    shopper = shopper_of(request)
    if shopper is not None:
        await extra((await _views()).viewed(shopper, found.id, request.query_params.get("via", "")[:_VIA_MAX]))
    return page(
        "product.html",
        around,
        product=found,
        price=price,
        stock=stock_note(left),
        sold_out=left == 0,
        others=await goes_with((found.id,)),
        ad=await extra((await _ads()).choose(found.categories)),
    )


async def search(request: Request) -> Response:
    query = request.query_params.get("q", "").strip()[:80]
    around = await head(request)
    by_meaning = bool(query) and request.query_params.get("by") == "meaning"
    if by_meaning:
        found = await near_in_meaning(query)
    else:
        found = await (await _catalog()).search(query) if query else ()
    return page("search.html", around, query=query, things=await priced(found, around.currency), by_meaning=by_meaning)


async def set_currency(request: Request) -> Response:
    fields = await form(request)
    chosen = fields.get("currency", "")
    if chosen not in await (await _currency()).supported():
        chosen = CURRENCY_FIRST
    return redirect(request, here(fields.get("back", "/")), currency=chosen)


async def cart(request: Request) -> Response:
    bag = await view_of(request)
    response = page(
        "cart.html",
        await head(request, bag.contents),
        items=bag.items,
        things_sum=bag.things,
        shipping=bag.shipping,
        total=bag.total,
        country=bag.country,
        destinations=bag.destinations,
        days=f"Between {bag.quote.days_min} and {bag.quote.days_max} working days.",
        quantity_max=QUANTITY_MAX,
        reminded=await was_reminded(request, bag.contents),
        notice=_NOTICES.get(request.query_params.get("notice", ""), ""),
        others=await goes_with(tuple(item.product.id for item in bag.items)),
    )
    if request.query_params.get("country") == bag.country.code:
        remember(request, response, "country", bag.country.code)
    return response


async def add_to_cart(request: Request) -> Response:
    fields = await form(request)
    found = await (await _catalog()).product(fields.get("product_id", ""))
    shopper = shopper_of(request) or new_shopper()
    try:
        await (await _cart()).add(shopper, found.id, _quantity(fields))
    except QuantityRefused:
        return redirect(request, "/cart?notice=quantity", shopper=shopper)
    return redirect(request, "/cart", shopper=shopper)


async def change_cart(request: Request) -> Response:
    fields, shopper = await form(request), shopper_of(request)
    if shopper is None:
        return redirect(request, "/cart")
    quantity = 0 if "remove" in fields else _quantity(fields)
    try:
        await (await _cart()).set_quantity(shopper, fields.get("product_id", ""), quantity)
    except QuantityRefused:
        return redirect(request, "/cart?notice=quantity")
    return redirect(request, "/cart")


async def empty_cart(request: Request) -> Response:
    shopper = shopper_of(request)
    if shopper is not None:
        await (await _cart()).empty(shopper)
    return redirect(request, "/cart")


_NOTICES = {
    "quantity": f"One bag takes between one and {QUANTITY_MAX} pieces of a thing.",
    "stock": "There is not enough left of something in your bag. Please take fewer pieces of it.",
    "changed": "Your bag has changed since you went to the till. Please look at it again.",
}


@dataclass(frozen=True, slots=True)
class Item:
    product: Product
    quantity: int
    price: Money
    stock: str

    @property
    def sum(self) -> Money:
        return self.price * self.quantity


@dataclass(frozen=True, slots=True)
class Bag:
    """The cart with everything that is shown beside it, in the shopper's currency."""

    contents: CartContents
    items: tuple[Item, ...]
    currency: str
    country: Destination
    destinations: tuple[Destination, ...]
    quote: Quote
    things: Money
    shipping: Money
    total: Money


async def view_of(request: Request) -> Bag:
    contents = await cart_of(request)
    catalog, currency, shipping = await _catalog(), await _currency(), await _shipping()
    chosen = request.cookies.get("currency", CURRENCY_FIRST)
    code = chosen if chosen in await currency.supported() else CURRENCY_FIRST
    items: list[Item] = []
    left = await stock_of(tuple(line.product_id for line in contents.lines))
    for line in contents.lines:
        try:
            found = await catalog.product(line.product_id)
        except ProductNotFound:  # taken off the shelf since; checkout refuses it, the page leaves it out
            continue
        price = await currency.convert(found.price, code)
        items.append(Item(found, line.quantity, price, stock_note(left.get(found.id), line.quantity)))
    destinations = await shipping.destinations()
    wanted = request.query_params.get("country") or request.cookies.get("country", COUNTRY_FIRST)
    by_code = {destination.code: destination for destination in destinations}
    country = by_code.get(wanted) or by_code[COUNTRY_FIRST]
    try:
        quote = await shipping.quote(contents.pieces, country.code)
    except CountryNotServed:
        country = by_code[COUNTRY_FIRST]
        quote = await shipping.quote(contents.pieces, country.code)
    cost = await currency.convert(quote.cost, code)
    things = sum((item.sum for item in items), Money(code, cost.amount * 0))
    return Bag(contents, tuple(items), code, country, destinations, quote, things, cost, things + cost)


async def priced(products: tuple[Product, ...], currency: str) -> list[tuple[Product, Money]]:
    """Each product with its price in ``currency``, by one conversion each."""
    convert = (await _currency()).convert
    prices = await each(lambda found: convert(found.price, currency), products)
    return list(zip(products, prices, strict=True))


@dataclass(frozen=True, slots=True)
class Suggested:
    """A product that is recommended, and where a click on it is said to come from."""

    product: Product
    why: str
    via: str


_WHYS = {Why.ALIKE: "Much like it", Why.TOGETHER: "Often bought with it", Why.LIKED: "Often bought"}


async def goes_with(product_ids: tuple[str, ...]) -> list[Suggested]:
    """Recommended products; none, rather than no page, if that part of the shop does not answer."""
    found = await extra((await _recommendations()).suggest(product_ids))
    if found is None:
        return []
    products = await each((await _catalog()).product, [item.product_id for item in found.items])
    return [
        Suggested(product, _WHYS.get(item.why, ""), found.version)
        for product, item in zip(products, found.items, strict=True)
    ]


async def near_in_meaning(query: str) -> tuple[Product, ...]:
    """None, rather than no page, if that part of the shop does not answer."""
    ids = await extra((await _meaning()).find(query))
    return tuple(await each((await _catalog()).product, ids or ()))


async def was_reminded(request: Request, contents: CartContents) -> bool:
    shopper = shopper_of(request)
    if shopper is None or not contents.lines:
        return False
    return await extra((await _emails()).reminder(shopper, contents.version)) is not None


async def stock_of(product_ids: tuple[str, ...]) -> dict[str, int]:
    """How many pieces of each are free; of none, rather than no page, if that part of the shop does not answer."""
    levels: tuple[StockLevel, ...] = ()
    if product_ids:
        levels = await extra((await _inventory()).levels(product_ids)) or ()
    return {level.product_id: level.free for level in levels}


async def extra(call: Awaitable[T]) -> T | None:
    """The answer of a part that a page can do without."""
    try:
        return await call
    except CallError:
        return None


def _quantity(fields: dict[str, str]) -> int:
    typed = fields.get("quantity", "1").strip()
    return int(typed) if typed.isascii() and typed.isdigit() and len(typed) < 6 else -1
