"""The example's templates, compiled when the process starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from benchmarks.peers.boutique_fastapi.models import WITHOUT_CENTS, Money

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


@dataclass(frozen=True, slots=True)
class Head:
    path: str
    currency: str
    currencies: tuple[str, ...]
    pieces: int
    place: str
    account: str = ""
    """The peer signs nobody in."""


class Pages:
    def __init__(self, templates: Path, static: Callable[[str], str]) -> None:
        environment = Environment(
            loader=FileSystemLoader(templates),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["money"] = _money
        environment.globals.update(static=static, options=_options)
        self._templates = {name: environment.get_template(name) for name in environment.list_templates(["html"])}

    def page(self, template: str, head: Head, *, status: int = 200, **values: Any) -> Response:
        body = self._templates[template].render(head=head, **values)
        return Response(body, status, _HEADERS, media_type="text/html")


@lru_cache(maxsize=256)
def _options(values: tuple[str, ...], chosen: str) -> Markup:
    return Markup().join(
        Markup("<option{}>{}</option>").format(Markup(" selected") if value == chosen else "", value)
        for value in values
    )


def _money(amount: Money) -> str:
    value = amount.amount
    digits = f"{value:,.0f}" if amount.currency in WITHOUT_CENTS else f"{value:,.2f}"
    sign = _SIGNS.get(amount.currency)
    return f"{sign}{digits}" if sign else f"{amount.currency}\N{NO-BREAK SPACE}{digits}"
