"""The payload of every remote-call row: a small order, about 200 bytes of JSON each way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Line:
    sku: str
    quantity: int
    price: Decimal


@dataclass(frozen=True, slots=True)
class Order:
    id: UUID
    customer: str
    placed_at: datetime
    total: Decimal
    lines: list[Line]


SAMPLE = Order(
    id=UUID("6f1c1f0e-6a2b-4a58-9d7e-0f6a2b4a589d"),
    customer="c-20931",
    placed_at=datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC),
    total=Decimal("104.47"),
    lines=[Line("OLJCESPC7Z", 2, Decimal("19.99")), Line("66VCHSJNUP", 1, Decimal("64.49"))],
)
