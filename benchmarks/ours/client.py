"""``python -m benchmarks.ours.client <authority> <port> [sample]``: a process that hosts caller and calls orders."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.driver import Call, drive
from benchmarks.order import SAMPLE, Order
from benchmarks.ours.hosting import open_mesh
from benchmarks.ours.orders import Orders
from seamline.kernel.lifetime import spare_the_collector
from seamline.mesh.balance import Endpoint


async def connect() -> Call:
    sample = float(sys.argv[3]) if len(sys.argv) > 3 else None
    mesh = open_mesh("caller", authority=Path(sys.argv[1]), sample=sample)
    mesh.set_endpoints({"orders": [Endpoint("127.0.0.1", int(sys.argv[2]))]})
    place = mesh.stub(Orders, "caller").place

    async def call() -> Order:
        return await place(SAMPLE)

    assert await call() == SAMPLE
    spare_the_collector()  # as every worker does
    return call


if __name__ == "__main__":
    drive(connect)
