"""Templates to pages. Everything is compiled when the process starts; a request only fills in."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from markupsafe import Markup
from starlette.responses import Response

from boutique.frontend.files import StaticFiles
from boutique.inventory import LOW
from boutique.money import WITHOUT_CENTS, Money
from boutique.pages import templates

_HERE = Path(__file__).parent
_SIGNS = {
    "AUD": "A$", "BRL": "R$", "CAD": "C$", "CNY": "CN¥", "EUR": "€", "GBP": "£", "HKD": "HK$", "ILS": "₪",
    "INR": "₹", "JPY": "¥", "KRW": "₩", "MXN": "MX$", "NZD": "NZ$", "PHP": "₱", "SGD": "S$", "THB": "฿",
    "TRY": "₺", "USD": "$",
}  # fmt: skip
_HEADERS = {
    "cache-control": "private, no-cache",
    "content-security-policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; frame-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
}

static_files = StaticFiles(_HERE / "static", "/static")


@dataclass(frozen=True, slots=True)
class Head:
    """What every page shows around its content."""

    path: str
    currency: str
    currencies: tuple[str, ...]
    pieces: int
    place: str
    account: str
    """The name of who is signed in; empty for nobody."""


def money(amount: Money) -> str:
    """``€1,234.50``; the code stands where a currency has no sign of its own."""
    value: Decimal = amount.amount
    digits = f"{value:,.0f}" if amount.currency in WITHOUT_CENTS else f"{value:,.2f}"
    sign = _SIGNS.get(amount.currency)
    return f"{sign}{digits}" if sign else f"{amount.currency}\N{NO-BREAK SPACE}{digits}"


def stock_note(left: int | None, wanted: int = 0) -> str:
    """What is worth saying of a product's stock; nothing if there is plenty, or nobody knows."""
    if left is None or left >= max(LOW, wanted):
        return ""
    return f"{left} left" if left else "Sold out"


@lru_cache(maxsize=256)
def options(values: tuple[str, ...], chosen: str) -> Markup:
    """The options of a select; the same few lists stand on every page."""
    return Markup().join(
        Markup("<option{}>{}</option>").format(Markup(" selected") if value == chosen else "", value)
        for value in values
    )


_environment = templates(_HERE / "templates")
_environment.filters["money"] = money
cast("dict[str, Any]", _environment.globals).update(static=static_files.url, options=options)
_templates = {name: _environment.get_template(name) for name in _environment.list_templates(["html"])}


def page(template: str, head: Head, *, status: int = 200, **values: Any) -> Response:
    """A page as a response."""
    body = _templates[template].render(head=head, **values)
    return Response(body, status, _HEADERS, media_type="text/html")
