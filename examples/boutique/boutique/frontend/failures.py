"""What a shopper sees when something is missing or does not answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from boutique.catalog import ProductNotFound
from boutique.checkout import OrderNotFound
from boutique.emails import LetterNotFound
from boutique.frontend.render import page
from boutique.frontend.visit import FormTooLargeError, bare_head
from seamline import CallError, DeadlineExceeded, Overloaded, Unavailable


def _failure(request: Request, status: int, title: str, text: str, picture: str) -> Response:
    return page("error.html", bare_head(request), status=status, title=title, text=text, picture=picture)


async def _missing(request: Request, error: Exception) -> Response:
    texts: dict[type[Exception], str] = {
        ProductNotFound: "We do not have this, and perhaps never had.",
        OrderNotFound: "There is no such order. Orders are found only by the link that you were given.",
        LetterNotFound: "No letter was written for this order, or not yet.",
    }
    what = texts.get(type(error), "This page is not on the shelf.")
    return _failure(request, 404, "Nothing here", what, "round-sunglasses.svg")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return await _missing(request, error)
    response = _failure(request, error.status_code, "This does not work", error.detail, "field-notebook.svg")
    response.headers.update(error.headers or {})
    return response


async def _too_large(request: Request, error: Exception) -> Response:
    _ = error
    return _failure(request, 413, "That is a lot", "The form is longer than we can read.", "field-notebook.svg")


async def _busy(request: Request, error: Exception) -> Response:
    _ = error
    response = _failure(
        request,
        503,
        "One moment, please",
        "A part of the shop does not answer just now. Nothing is lost: your bag is as it was. Try again shortly.",
        "quiet-clock.svg",
    )
    response.headers["retry-after"] = "2"
    return response


async def _broken(request: Request, error: Exception) -> Response:
    _ = error
    return _failure(
        request,
        500,
        "Something came undone",
        "It is our seam that opened, not yours. We have written it down.",
        "linen-apron.svg",
    )


HANDLERS: Mapping[Any, Any] = {
    ProductNotFound: _missing,
    OrderNotFound: _missing,
    LetterNotFound: _missing,
    HTTPException: _http,
    FormTooLargeError: _too_large,
    Unavailable: _busy,
    Overloaded: _busy,
    DeadlineExceeded: _busy,
    CallError: _broken,
    Exception: _broken,
}
