"""``python -m benchmarks.peers.fastapi_httpx.server <certificates>``."""

from __future__ import annotations

import sys
from pathlib import Path

from fastapi import FastAPI

from benchmarks.driver import run
from benchmarks.peers.fastapi_httpx.models import Order
from benchmarks.peers.uvicorn_server import serve

app = FastAPI()


@app.post("/orders")
async def place(order: Order) -> Order:
    return order


async def main() -> None:
    await serve(app, Path(sys.argv[1]))


if __name__ == "__main__":
    run(main)
