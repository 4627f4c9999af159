"""One visit: who the shopper is, what they chose, and what stands around every page."""

from __future__ import annotations

import re
import secrets
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from boutique.cart import Cart, CartContents
from boutique.currency import Currency
from boutique.frontend.render import Head
from seamline import User, place, use

CURRENCY_FIRST, COUNTRY_FIRST = "EUR", "BE"
_SHOPPER = re.compile(r"[A-Za-z0-9_-]{8,64}")
_MONTH_S = 30 * 24 * 3600
_FORM_BYTES_MAX = 16 * 1024
_EMPTY = CartContents(0, ())

_cart = use(Cart)
_currency = use(Currency)


class FormTooLargeError(Exception):
    """A form of the shop is never as long as this one."""


async def form(request: Request) -> dict[str, str]:
    """The fields of a posted form."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES_MAX:
            raise FormTooLargeError
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=64))


def shopper_of(request: Request) -> str | None:
    """The cookie's shopper; ``None`` on a first visit, or if the cookie is not one of ours."""
    found = request.cookies.get("shopper", "")
    return found if _SHOPPER.fullmatch(found) else None


def new_shopper() -> str:
    """Nobody guesses another shopper's name: 144 bits."""
    return secrets.token_urlsafe(18)


def redirect(request: Request, path: str, **cookies: str) -> Response:
    """See other page, and remember ``cookies``."""
    response = RedirectResponse(path, 303)
    for name, value in cookies.items():
        remember(request, response, name, value)
    return response


def remember(request: Request, response: Response, name: str, value: str) -> None:
    secure = request.url.scheme == "https"
    response.set_cookie(name, value, _MONTH_S, httponly=True, samesite="lax", secure=secure)


def here(path: str) -> str:
    """``path`` if it leads to a page of the shop, else the home page."""
    safe = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if safe else "/"


async def cart_of(request: Request) -> CartContents:
    shopper = shopper_of(request)
    return _EMPTY if shopper is None else await (await _cart()).contents(shopper)


async def head(request: Request, cart: CartContents | None = None) -> Head:
    """What stands around the page; the cart is asked unless the page has it already."""
    currencies = await (await _currency()).supported()
    chosen = request.cookies.get("currency", CURRENCY_FIRST)
    contents = await cart_of(request) if cart is None else cart
    return Head(
        path=_path(request),
        currency=chosen if chosen in currencies else CURRENCY_FIRST,
        currencies=currencies,
        pieces=contents.pieces,
        place=where(),
        account=account_of(request),
    )


def bare_head(request: Request) -> Head:
    """For pages that tell of a failure: it asks nobody."""
    return Head(
        path=_path(request),
        currency=CURRENCY_FIRST,
        currencies=(CURRENCY_FIRST,),
        pieces=0,
        place=where(),
        account=account_of(request),
    )


def account_of(request: Request) -> str:
    """The name of who is signed in, as the gateway established it."""
    user: User | None = request.scope.get("seamline.user")
    return (user.name or user.id) if user is not None else ""


def where() -> str:
    """Which workload answered, for those who watch a topology change."""
    at = place()
    if not at.topology:
        return ""
    replica = f", replica {at.replica}" if at.replica else ""
    return f"Answered by workload {at.workload}{replica}, topology {at.topology}"


def _path(request: Request) -> str:
    if request.method != "GET":
        return "/"
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path
