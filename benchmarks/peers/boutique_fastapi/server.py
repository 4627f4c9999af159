"""``python -m benchmarks.peers.boutique_fastapi.server <service> <settings.json>``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from benchmarks.driver import run
from benchmarks.peers.boutique_fastapi.platform import Settings
from benchmarks.peers.uvicorn_server import serve


async def main() -> None:
    name, settings = sys.argv[1], Settings.load(Path(sys.argv[2]))
    create = importlib.import_module(f"benchmarks.peers.boutique_fastapi.{name}").create
    certificates = None if name == "frontend" else settings.certificates
    await serve(create(settings), certificates, port=settings.ports[name])


if __name__ == "__main__":
    run(main)
