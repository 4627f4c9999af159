"""``python -m seamline.models.gateway --config ai.toml [--listen 127.0.0.1:8090] [--data folder]``: alone."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import signal
import socket
import sys
from pathlib import Path

import uvloop

from seamline.kernel.errors import SeamlineError
from seamline.kernel.lifetime import spare_the_collector
from seamline.kernel.settings import AiGatewaySettings, load_ai_gateway
from seamline.models.gateway.gateway import AiGateway

_DRAIN_S = 20.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m seamline.models.gateway", description="The AI gateway, alone.")
    parser.add_argument("--config", type=Path, required=True, help="file with [ai_gateway]")
    parser.add_argument("--listen", default="", help="instead of the file's: 127.0.0.1:8090")
    parser.add_argument("--data", type=Path, default=Path(".seamline"), help="folder of keys and budgets")
    options = parser.parse_args()
    try:
        settings = load_ai_gateway(options.config)
        settings = dataclasses.replace(settings, listen=options.listen or settings.listen or "127.0.0.1:8090")
        uvloop.run(serve(settings, options.data))
    except SeamlineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def serve(settings: AiGatewaySettings, folder: Path) -> None:
    """Until the process is asked to stop. Says where it listens in one line of JSON."""
    gateway = AiGateway.open(settings, folder)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    await gateway.start()
    try:
        with _listen(settings.address) as listening:
            await gateway.serve(listening)
            sys.stdout.write(json.dumps({"listen": "{}:{}".format(*listening.getsockname()[:2])}) + "\n")
            sys.stdout.flush()
            spare_the_collector()
            await stop.wait()
            await gateway.drain(_DRAIN_S)
    finally:
        await gateway.close()


def _listen(address: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    return socket.create_server(address, family=family, backlog=1024)


if __name__ == "__main__":
    raise SystemExit(main())
