"""The order as a FastAPI user writes it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from pydantic import BaseModel


class Line(BaseModel):
    sku: str
    quantity: int
    price: Decimal


class Order(BaseModel):
    id: UUID
    customer: str
    placed_at: datetime
    total: Decimal
    lines: list[Line]
