"""A process that is paused by SIGSTOP in the middle of a step, long enough to lose its sagas."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from sqlalchemy import select
from tests.sagas.paused_child import LEASE_S, held_up, rows, shop, tables
from tests.sagas.rig import Host, settings, until

from seamline.kernel.owner import process_owner
from seamline.kernel.store import Database

ROOT = Path(__file__).parent.parent.parent


async def test_what_a_paused_process_writes_after_its_lease_was_taken_is_refused(store_url: str, tmp_path: Path):
    """The step's row is there once: the paused one's was rolled back; both sides see the same result."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.sagas.paused_child", store_url, str(tmp_path), cwd=ROOT
    )
    try:
        await until((tmp_path / "waiting").exists, 60)
        os.kill(child.pid, signal.SIGSTOP)
        (tmp_path / "go").touch()
        async with Database(store_url, "shop", tables) as db:
            host = Host(shop, db, settings=settings(lease_s=LEASE_S), owner=process_owner("other"))
            await host.start()
            handle = await host.sagas.start(held_up, str(tmp_path), key="one")
            assert await handle.result(30) == "done"
            os.kill(child.pid, signal.SIGCONT)
            assert await asyncio.wait_for(child.wait(), 60) == 0
            async with db.read() as r:
                assert len((await r.execute(select(rows))).all()) == 1
            await host.stop()
        assert (tmp_path / "child").read_text() == "done, lost: True"
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
