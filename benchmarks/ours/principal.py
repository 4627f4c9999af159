"""``python -m benchmarks.ours.principal <folder>``: what it costs that the user travels with a call, in µs of CPU.

Remote calls go over mutual TLS between two meshes of this process, so that the CPU is that of both sides. Answers each
command ``{"blocks": n}`` with medians over n blocks of each kind, taken in turns.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from benchmarks.driver import run, say
from benchmarks.ours.hosting import open_mesh
from benchmarks.ours.orders import Orders
from benchmarks.ours.orders.module import OrderService
from seamline.mesh.balance import Endpoint
from seamline.mesh.mesh import Mesh
from seamline.module.context import CURRENT, CallContext
from seamline.module.principal import User

CALLS = 10_000
CALLS_OF_A_HANDLER = 20
REMOTE_CALLS = 1_000
PROOFS = 200
ANN = User(
    "ann", issuer="https://id.example", roles=frozenset({"customer", "support"}), name="Ann Example",
    email="ann@example.com", session="0123456789abcdef", authenticated_at=1_700_000_000, client="web",
)  # fmt: skip


async def main() -> None:
    folder = Path(sys.argv[1])
    here = open_mesh("orders", "caller", sample=0.0)
    server = open_mesh("orders", authority=folder, sample=0.0)
    client = open_mesh("caller", "gateway", authority=folder, sample=0.0)
    for mesh in (server, client):
        for other in (server, client):
            assert mesh.identity is not None
            assert other.identity is not None
            mesh.identity.keys.add(other.identity.keys.known)
    listener = socket.create_server(("127.0.0.1", 0))
    await server.port.listen(listener)
    client.set_endpoints({"orders": [Endpoint("127.0.0.1", listener.getsockname()[1])]})
    service = OrderService()
    kinds: dict[str, Callable[[], Awaitable[float]]] = {
        "bare": lambda: _bare(service),
        "local_nobody": lambda: _calls(here, None, CALLS),
        "local_user": lambda: _calls(here, ANN, CALLS),
        "remote_nobody": lambda: _calls(client, None, REMOTE_CALLS),
        "remote_user": lambda: _calls(client, ANN, REMOTE_CALLS),
        "proof_made": lambda: _made(client),
        "proof_checked": lambda: _checked(client, server),
    }
    for block in kinds.values():
        await block()
    say({"ready": True})
    for line in sys.stdin:  # nothing else is to run on this event loop
        taken: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(json.loads(line)["blocks"]):
            for name, block in kinds.items():
                taken[name].append(1e6 * await block())
        say({name: median(values) for name, values in taken.items()})
    await client.stop()
    await server.stop()


async def _bare(service: OrderService) -> float:
    began = process_time()
    for _ in range(CALLS):
        await service.count(1)
    return (process_time() - began) / CALLS


async def _calls(mesh: Mesh, user: User | None, calls: int) -> float:
    """Calls as a handler makes them, twenty for each request; the request's own introduction is counted."""
    count = mesh.stub(Orders, "caller").count
    began = process_time()
    for _ in range(calls // CALLS_OF_A_HANDLER):
        subject = mesh.introduce(user) if user is not None else None
        token = CURRENT.set(CallContext("caller", "gateway", trace=mesh.tracer.root(), subject=subject))
        for _ in range(CALLS_OF_A_HANDLER):
            await count(1)
        CURRENT.reset(token)
    return (process_time() - began) / calls


async def _made(mesh: Mesh) -> float:
    """A proof of two links, as the first call of a user needs it; then an event's, of one more."""
    began = process_time()
    for number in range(PROOFS):
        subject: Any = mesh.delegation.introduce(User(f"user {number} {began}"))
        mesh.delegation.token(subject.acting("caller"), "orders")
    return (process_time() - began) / PROOFS


async def _checked(client: Mesh, server: Mesh) -> float:
    made = process_time()
    tokens = [
        client.delegation.token(client.delegation.introduce(User(f"{number} {made}")).acting("caller"), "orders")
        for number in range(PROOFS)
    ]
    began = process_time()
    for token in tokens:
        server.admit(token, "caller", "orders")
    return (process_time() - began) / PROOFS


if __name__ == "__main__":
    run(main)
