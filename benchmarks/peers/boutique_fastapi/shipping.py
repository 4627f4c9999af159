"""Shipping: zones, a price per piece, and a route that can be foretold."""

from __future__ import annotations

import base64
import hashlib
from decimal import Decimal
from typing import Any

from fastapi import FastAPI, HTTPException

from benchmarks.peers.boutique_fastapi.models import Destination, Money, Quote, Shipment, Stop
from benchmarks.peers.boutique_fastapi.platform import Settings, service


def create(settings: Settings) -> FastAPI:
    app = service("shipping", settings)
    countries: dict[str, dict[str, Any]] = settings.data["countries"]
    everywhere = tuple(Destination(code=code, name=told["name"]) for code, told in countries.items())

    def served(country: str) -> dict[str, Any]:
        found = countries.get(country)
        if found is None:
            raise HTTPException(422, "country")
        return found

    @app.get("/destinations")
    async def destinations() -> tuple[Destination, ...]:
        return everywhere

    @app.get("/quote")
    async def quote(pieces: int, country: str) -> Quote:
        zone = served(country)
        cost = Decimal(zone["base"]) + Decimal(zone["piece"]) * max(0, pieces - 1)
        return Quote(cost=Money(currency="EUR", amount=cost), days_min=zone["days_min"], days_max=zone["days_max"])

    @app.post("/shipments")
    async def ship(shipment: Shipment) -> str:
        served(shipment.address.country)
        digest = hashlib.blake2b(shipment.order_id.encode(), digest_size=8, person=b"parcel").digest()
        return f"HS-{base64.b32encode(digest)[:10].decode()}"

    @app.get("/route")
    async def route(tracking_id: str, country: str) -> tuple[Stop, ...]:
        zone = served(country)
        return (
            Stop(day=0, place="Ghent", note=f"Packed in our workshop, parcel {tracking_id}"),
            Stop(day=zone["days_min"] - 1, place="Ghent", note="Handed to the carrier"),
            Stop(day=zone["days_min"], place=zone["hub"], note="Changes vans"),
            Stop(day=zone["days_max"], place=zone["name"], note="At your door, at the latest"),
        )

    return app
