"""The inside of analytics: views of what happens, a report made of them with SQL, and a page that shows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec

from boutique.analytics import ABANDONED_AFTER_S, Analytics, Baskets, Minute, Report, Seller, Takings, views
from boutique.analytics.page import app
from boutique.money import Money
from seamline import Clock, Module
from seamline.events.streams import Cell, Views

MINUTES_MAX = 6 * 60

Rows = list[dict[str, Cell]]

module = Module("analytics", provides=Analytics)
module.mount(app, at="/analytics")
views.declare(module)


@module.service
class AnalyticsService(Analytics):
    def __init__(self, views: Views, clock: Clock) -> None:
        self._views = views
        self._clock = clock

    async def report(self, minutes: int = 60) -> Report:
        until = self._clock.now()
        first = until.replace(second=0, microsecond=0) - timedelta(minutes=max(1, min(minutes, MINUTES_MAX)) - 1)
        sales = await self._ask(
            "SELECT start_ms, currency, orders, revenue_cents FROM sales_by_minute WHERE start_ms >= :since", first
        )
        visits = await self._ask(
            "SELECT count(*) AS visits, coalesce(sum(CASE WHEN orders > 0 THEN 1 ELSE 0 END), 0) AS bought "
            "FROM visits WHERE end_ms > :since",
            first,
        )
        status = await self._ask("SELECT sum(events) AS events, sum(late) AS late FROM stream_status", None)
        return Report(
            since=first,
            until=until,
            minutes=await self._minutes(sales, first, until),
            takings=_takings(sales),
            visits=_int(visits[0]["visits"]),
            bought=_int(visits[0]["bought"]),
            sellers=await self._sellers(until),
            baskets=await self._baskets(first, until),
            counted=_int(status[0]["events"]),
            late=_int(status[0]["late"]),
        )

    async def _minutes(self, sales: Rows, first: datetime, until: datetime) -> tuple[Minute, ...]:
        """Every minute, also those in which nothing happened."""
        orders: dict[Cell, int] = {}
        for row in sales:
            orders[row["start_ms"]] = orders.get(row["start_ms"], 0) + _int(row["orders"])
        visitors = {
            row["start_ms"]: _int(row["visitors"])
            for row in await self._ask(
                "SELECT start_ms, visitors FROM visitors_by_minute WHERE start_ms >= :since", first
            )
        }
        found: list[Minute] = []
        at = first
        while at <= until:
            start_ms = round(at.timestamp() * 1000)
            found.append(Minute(at, orders.get(start_ms, 0), visitors.get(start_ms, 0)))
            at += timedelta(minutes=1)
        return tuple(found)

    async def _sellers(self, until: datetime) -> tuple[Seller, ...]:
        """Of the hour that ends with the five minutes under way."""
        seconds = int(until.timestamp()) // views.TOP_EVERY_S * views.TOP_EVERY_S
        since = datetime.fromtimestamp(seconds - (views.TOP_OF_S - views.TOP_EVERY_S), UTC)
        rows = await self._ask("SELECT products FROM top_products WHERE start_ms = :since", since)
        products = msgspec.json.decode(str(rows[0]["products"]), type=list[tuple[str, int]]) if rows else []
        return tuple(Seller(product_id, pieces) for product_id, pieces in products)

    async def _baskets(self, first: datetime, until: datetime) -> tuple[Baskets, ...]:
        rows = {
            row["start_ms"]: row
            for row in await self._ask(
                "SELECT start_ms, ordered, abandoned, closed FROM baskets WHERE end_ms > :since", first
            )
        }
        found: list[Baskets] = []
        seconds = int(first.timestamp()) // views.BASKETS_S * views.BASKETS_S
        while seconds <= until.timestamp():
            row = rows.get(seconds * 1000, {})
            settled = until.timestamp() - seconds > views.BASKETS_S + ABANDONED_AFTER_S or bool(row.get("closed"))
            at = datetime.fromtimestamp(seconds, UTC)
            found.append(Baskets(at, _int(row.get("ordered")), _int(row.get("abandoned")), settled))
            seconds += views.BASKETS_S
        return tuple(found)

    async def _ask(self, statement: str, since: datetime | None) -> Rows:
        parameters = {} if since is None else {"since": since}
        return await self._views.query("analytics", statement, **parameters)


def _takings(sales: Rows) -> tuple[Takings, ...]:
    """By currency, the one with the most orders first."""
    found: dict[str, tuple[int, int]] = {}
    for row in sales:
        orders, cents = found.get(str(row["currency"]), (0, 0))
        found[str(row["currency"])] = orders + _int(row["orders"]), cents + _int(row["revenue_cents"])
    ranked = sorted(found.items(), key=lambda pair: (-pair[1][0], pair[0]))
    return tuple(Takings(orders, Money(currency, Decimal(cents) / 100)) for currency, (orders, cents) in ranked)


def _int(cell: Cell) -> int:
    return int(cell or 0)
