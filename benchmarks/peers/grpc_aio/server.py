"""``python -m benchmarks.peers.grpc_aio.server <generated> <certificates>``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import grpc

from benchmarks.driver import run, say
from benchmarks.peers.grpc_aio.compile import load


async def main() -> None:
    generated, certificates = sys.argv[1], Path(sys.argv[2])
    _messages, services = load(generated)

    class Orders(services.OrdersServicer):  # type: ignore[misc, name-defined]
        async def Place(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 - gRPC's names
            return request

    server = grpc.aio.server()
    services.add_OrdersServicer_to_server(Orders(), server)
    credentials = grpc.ssl_server_credentials(
        [((certificates / "server.key").read_bytes(), (certificates / "server.pem").read_bytes())],
        root_certificates=(certificates / "ca.pem").read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    say({"ready": True, "port": port})
    await server.wait_for_termination()


if __name__ == "__main__":
    run(main)
