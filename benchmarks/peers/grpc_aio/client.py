"""``python -m benchmarks.peers.grpc_aio.client <generated> <certificates> <port>``: one channel, as gRPC advises."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc

from benchmarks.driver import Call, drive
from benchmarks.order import SAMPLE
from benchmarks.peers.grpc_aio.compile import load

TIMEOUT_S = 10


async def connect() -> Call:
    generated, certificates, port = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    messages, services = load(generated)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=(certificates / "ca.pem").read_bytes(),
        private_key=(certificates / "client.key").read_bytes(),
        certificate_chain=(certificates / "client.pem").read_bytes(),
    )
    stub = services.OrdersStub(grpc.aio.secure_channel(f"localhost:{port}", credentials))
    order = messages.Order(
        id=str(SAMPLE.id),
        customer=SAMPLE.customer,
        total=str(SAMPLE.total),
        lines=[messages.Line(sku=line.sku, quantity=line.quantity, price=str(line.price)) for line in SAMPLE.lines],
    )
    order.placed_at.FromDatetime(SAMPLE.placed_at)
    place = stub.Place

    async def call() -> None:
        await place(order, timeout=TIMEOUT_S)

    await call()
    return call


if __name__ == "__main__":
    drive(connect)
