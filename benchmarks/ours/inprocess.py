"""``python -m benchmarks.ours.inprocess``: what a call inside one process costs over a bare ``await``, in µs of CPU.

Answers each command ``{"blocks": n}`` with medians over n blocks of each kind, taken in turns.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from statistics import median
from time import process_time
from typing import Annotated, Any

from fastapi import Depends, FastAPI

from benchmarks.driver import run, say
from benchmarks.ours.hosting import open_mesh
from benchmarks.ours.orders import Orders
from benchmarks.ours.orders.module import OrderService
from seamline.module.context import CURRENT, CallContext

CALLS = 20_000
CALLS_OF_A_HANDLER = 20
HANDLERS_BETWEEN_TAKES = 50
REQUESTS = 1_000
SAMPLED_ALWAYS, SAMPLED_AS_DELIVERED, NEVER_SAMPLED = 1.0, 0.01, 0.0


async def main() -> None:
    service = OrderService()
    kinds: dict[str, Callable[[], Awaitable[float]]] = {
        "bare": lambda: _calls(service.count),
        "call": _within_handler(NEVER_SAMPLED),
        "traced_1_percent": _within_handler(SAMPLED_AS_DELIVERED),
        "traced_always": _within_handler(SAMPLED_ALWAYS),
        "fastapi_plain": lambda: _requests(apps["plain"]),
        "fastapi_depends": lambda: _requests(apps["depends"]),
    }
    apps = {"plain": _app(service, depends=False), "depends": _app(service, depends=True)}
    for block in kinds.values():
        await block()
    spans = await _spans_per_call()
    say({"ready": True})
    for line in sys.stdin:  # nothing else runs on this event loop
        taken: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(json.loads(line)["blocks"]):
            for name, block in kinds.items():
                taken[name].append(1e6 * await block())
        say({name: median(values) for name, values in taken.items()} | {"spans_per_call": spans})


def _within_handler(sample: float) -> Callable[[], Awaitable[float]]:
    """Calls as a handler makes them: under a call context, with a share ``sample`` of the handlers traced."""
    mesh = open_mesh("orders", "caller", sample=sample)
    count = mesh.stub(Orders, "caller").count

    async def block() -> float:
        began = process_time()
        for number in range(CALLS // CALLS_OF_A_HANDLER):
            token = CURRENT.set(CallContext("caller", "gateway", trace=mesh.tracer.root()))
            for _ in range(CALLS_OF_A_HANDLER):
                await count(1)
            CURRENT.reset(token)
            if not number % HANDLERS_BETWEEN_TAKES:
                mesh.tracer.take()
        return (process_time() - began) / CALLS

    return block


async def _spans_per_call() -> float:
    mesh = open_mesh("orders", "caller", sample=SAMPLED_ALWAYS)
    calls = 100
    for _ in range(calls):
        await mesh.stub(Orders, "caller").count(1)
    return len(mesh.tracer.take()) / calls


async def _calls(method: Callable[[int], Awaitable[int]]) -> float:
    began = process_time()
    for _ in range(CALLS // CALLS_OF_A_HANDLER):
        for _ in range(CALLS_OF_A_HANDLER):
            await method(1)
    return (process_time() - began) / CALLS


def _app(service: OrderService, *, depends: bool) -> FastAPI:
    app = FastAPI()

    async def orders() -> OrderService:
        return service

    if depends:

        @app.get("/")
        async def injected(found: Annotated[OrderService, Depends(orders)]) -> int:
            return await found.count(1)
    else:

        @app.get("/")
        async def plain() -> int:
            return await service.count(1)

    return app


async def _requests(app: FastAPI) -> float:
    """Requests without a network: the ASGI app is called as a server would call it."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message: Any) -> None:
        return None

    began = process_time()
    for _ in range(REQUESTS):
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/",
            "raw_path": b"/",
            "root_path": "",
            "query_string": b"",
            "headers": [],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }
        await app(scope, receive, send)
    return (process_time() - began) / REQUESTS


if __name__ == "__main__":
    run(main)
