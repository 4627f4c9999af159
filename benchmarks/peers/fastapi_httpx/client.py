"""``python -m benchmarks.peers.fastapi_httpx.client <certificates> <port>``."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx

from benchmarks.certificates import client_context
from benchmarks.driver import Call, drive
from benchmarks.order import SAMPLE
from benchmarks.peers.fastapi_httpx.models import Order

IN_FLIGHT_MAX = 64
TIMEOUT_S = 10


async def connect() -> Call:
    certificates, port = Path(sys.argv[1]), sys.argv[2]
    client = httpx.AsyncClient(
        base_url=f"https://localhost:{port}",
        verify=client_context(certificates),
        limits=httpx.Limits(max_connections=IN_FLIGHT_MAX, max_keepalive_connections=IN_FLIGHT_MAX),
        timeout=TIMEOUT_S,
        trust_env=False,
    )
    order = Order.model_validate(SAMPLE, from_attributes=True)
    headers = {"content-type": "application/json"}

    async def call() -> Order:
        response = await client.post("/orders", content=order.model_dump_json(), headers=headers)
        return Order.model_validate_json(response.raise_for_status().content)

    await call()
    return call


if __name__ == "__main__":
    drive(connect)
