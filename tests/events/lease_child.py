"""A process that holds leases and works under them, to be killed or paused."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from typing import Any

from sqlalchemy import text
from tests.events.log_rig import Place

from seamline.events.errors import LostLeaseError
from seamline.events.fences import check
from seamline.events.leases import Leases
from seamline.kernel.clock import SystemClock
from seamline.kernel.owner import process_owner
from seamline.kernel.store import Database

NAME = "shop.orders"
PARTITIONS = 8
TTL_S = 0.6
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.events.lease_child"])


class Member:
    """A process that has joined. ``effect`` lets it add one to ``effects`` for its first partition."""

    def __init__(self, place: Place) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_run, args=(place.url, place.module, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, what: str) -> Any:
        self._pipe.send(what)
        assert self._pipe.poll(30), f"no answer to {what!r}"
        return self._pipe.recv()

    def send(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def end(self) -> None:
        if self._process.is_alive():
            self.send(signal.SIGCONT)
            self._process.kill()
        self._process.join(20)


def _run(url: str, module: str, pipe: Any) -> None:
    asyncio.run(_hold(Place(url, module), pipe))


async def _hold(place: Place, pipe: Any) -> None:
    async with Database(place.url, place.module) as database:
        leases = Leases(database, process_owner("member"), SystemClock(), ttl_s=TTL_S)
        share = await leases.join(NAME, PARTITIONS)
        fence = None
        while True:
            match await asyncio.to_thread(pipe.recv):
                case "held":
                    pipe.send(dict(share.held()))
                case "begin":  # what a consumer does when it is handed an event
                    fence = share.fence(min(share.held()))
                    pipe.send(fence is not None)
                case "commit":
                    assert fence is not None
                    try:
                        async with database.transaction() as tx:
                            await tx.execute(text("INSERT INTO effects VALUES (:epoch)"), {"epoch": fence.epoch})
                            await check(tx, fence)
                        pipe.send("done")
                    except LostLeaseError:
                        pipe.send("lost")
                case _:
                    await leases.close()
                    pipe.send("closed")
                    return
