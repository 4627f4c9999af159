"""The event that every side publishes: 200 bytes of an order."""

from __future__ import annotations

import json
from typing import Any

TOPIC = "orders"
CONTENT: dict[str, Any] = {
    "order_id": "5b6d6b1e-6f0e-4c52-9a36-0f0a0d9e6a11",
    "shopper": "shopper-4711",
    "currency": "EUR",
    "total": "129.90",
    "lines": ["mug", "scarf", "lamp"],
    "placed_at": "2026-11-23T01:02:03Z",
    "note": "leave it with the neighbours",
}
BODY = json.dumps(CONTENT).encode()
