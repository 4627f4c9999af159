"""Exact conversion between currencies."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal

from fastapi import FastAPI, HTTPException

from benchmarks.peers.boutique_fastapi.models import Conversion, Money, smallest_unit
from benchmarks.peers.boutique_fastapi.platform import Settings, service

_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)


def create(settings: Settings) -> FastAPI:
    app = service("currency", settings)
    per_euro = {code: Decimal(rate) for code, rate in settings.data["per_euro"].items()}
    codes = tuple(sorted(per_euro))

    @app.get("/currencies")
    async def supported() -> tuple[str, ...]:
        return codes

    @app.post("/convert")
    async def convert(conversion: Conversion) -> Money:
        money, to = conversion.money, conversion.to
        if money.currency not in per_euro or to not in per_euro:
            raise HTTPException(422, "currency")
        value = _EXACT.divide(_EXACT.multiply(money.amount, per_euro[to]), per_euro[money.currency])
        return Money(currency=to, amount=value.quantize(smallest_unit(to), context=_EXACT))

    return app
