"""``python -m ... <ingress port>``: one call is the handler's three steps over the ingress, awaited to their end."""

from __future__ import annotations

import sys

import httpx

from benchmarks.driver import Call, drive


async def connect() -> Call:
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{sys.argv[1]}", timeout=60, limits=httpx.Limits(max_connections=64)
    )

    async def run() -> None:
        answer = await client.post("/Bench/three_steps", json=7)
        if answer.json() != 10:
            message = f"the handler gave {answer.text[:200]}"
            raise RuntimeError(message)

    return run


if __name__ == "__main__":
    drive(connect)
