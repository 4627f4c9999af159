"""``python -m benchmarks.ours.server <authority> [sample]``: a process that hosts orders behind its mesh port."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks.driver import run, say
from benchmarks.ours.hosting import open_mesh
from benchmarks.sockets import listen
from seamline.kernel.lifetime import spare_the_collector


async def main() -> None:
    sample = float(sys.argv[2]) if len(sys.argv) > 2 else None
    mesh = open_mesh("orders", authority=Path(sys.argv[1]), sample=sample)
    listening = listen()
    await mesh.port.listen(listening)
    say({"ready": True, "port": listening.getsockname()[1]})
    spare_the_collector()  # as every worker does
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(main)
