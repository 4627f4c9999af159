"""The page of analytics, which brings itself up to date every two seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from boutique.analytics import ABANDONED_AFTER_S, Analytics, Report
from boutique.analytics.chart import bars, columns
from boutique.catalog import Catalog
from boutique.money import Money
from boutique.pages import static, templates
from seamline import CallError, use

_HERE = Path(__file__).parent
_HEADERS = {
    "cache-control": "private, no-cache",
    "content-security-policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
_MINUTES = 60

_analytics, _catalog = use(Analytics), use(Catalog)


def _money(amount: Money) -> str:
    return f"{amount.amount:,.2f}\N{NO-BREAK SPACE}{amount.currency}"


_environment = templates(_HERE / "templates")
_environment.filters["money"] = _money
_page, _board = _environment.get_template("page.html"), _environment.get_template("board.html")


@dataclass(frozen=True, slots=True)
class _Line:
    """One row of the list of best sellers."""

    name: str
    pieces: int
    percent: int


async def page(request: Request) -> Response:
    _ = request
    return Response(_page.render(**await _values()), headers=_HEADERS, media_type="text/html")


async def board(request: Request) -> Response:
    """The part of the page that changes."""
    _ = request
    return Response(_board.render(**await _values()), headers=_HEADERS, media_type="text/html")


async def _values() -> dict[str, Any]:
    report = await (await _analytics()).report(_MINUTES)
    # Orders are known at once and abandonment after half an hour: a share is taken where both are.
    settled = [each for each in report.baskets if each.settled]
    abandoned = sum(each.abandoned for each in settled)
    fates = abandoned + sum(each.ordered for each in settled)
    return {
        "report": report,
        "orders": sum(each.orders for each in report.minutes),
        "conversion": _percent(report.bought, report.visits),
        "abandonment": _percent(abandoned, fates),
        "abandoned": abandoned,
        "fates": fates,
        "minutes": columns([(each.at, each.visitors, each.orders) for each in report.minutes]),
        "baskets": bars([(each.at, each.ordered, each.abandoned) for each in report.baskets]),
        "sellers": await _sellers(report),
        "patience": ABANDONED_AFTER_S // 60,
    }


async def _sellers(report: Report) -> list[_Line]:
    try:
        names = {product.id: product.name for product in await (await _catalog()).list_products()}
    except CallError:  # the list can do without names
        names = {}
    most = max((each.pieces for each in report.sellers), default=1)
    return [
        _Line(names.get(each.product_id, each.product_id), each.pieces, round(100 * each.pieces / most))
        for each in report.sellers
    ]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f}\N{NO-BREAK SPACE}%" if whole else "\N{EM DASH}"


app = Starlette(
    routes=[
        Route("/", page),
        Route("/board", board),
        static(_HERE / "static"),
    ]
)
