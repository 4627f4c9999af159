"""``python -m benchmarks.http_driver <json>``: the lean client, posting the sample order to one server.

The JSON names ``port``, ``path``, ``body`` (text), ``headers``, and for mTLS ``certificates`` (folder),
``name`` (of the leaf) and ``server_name``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.certificates import client_context
from benchmarks.driver import Call, drive
from benchmarks.http_client import HttpPool, request

IN_FLIGHT_MAX = 64


class Refused(RuntimeError):
    """The server answered with another status than 200."""


async def connect() -> Call:
    options = json.loads(sys.argv[1])
    folder = options.get("certificates")
    tls = client_context(Path(folder), options.get("name", "client")) if folder else None
    pool = HttpPool(
        "127.0.0.1",
        options["port"],
        tls=tls,
        server_name=options.get("server_name"),
        connections_max=IN_FLIGHT_MAX,
    )
    headers = {"content-type": "application/json"} | options.get("headers", {})
    message = request("POST", options["path"], options["body"].encode(), headers)

    async def call() -> bytes:
        response = await pool.send(message)
        if response.status != 200:
            raise Refused(f"status {response.status}: {response.body[:200]!r}")
        return response.body

    await call()
    return call


if __name__ == "__main__":
    drive(connect)
