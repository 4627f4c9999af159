"""Real processes, really killed."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.models.gateway import spenders

KILLS = 12


async def test_processes_killed_while_they_spend_overspend_nothing_and_leave_no_phantom(tmp_path: Path):
    """Three processes spend one budget to its end while one after the other is killed: engines billed no more than the
    ledger says, the ledger says no more than the limit, and no more than one call of each dead process that its
    engine had not yet been asked for."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, spenders.__file__, tmp_path / "budgets.db", str(KILLS), stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            out, _ = await program.communicate()
    finally:
        if program.returncode is None:
            program.kill()
    found = json.loads(out)
    assert found["killed"] == KILLS
    assert 0 < found["midway"] < 0.99 * spenders.MOST, "the last was killed when nothing was left to spend"
    assert found["billed"] <= found["used"] <= spenders.MOST
    assert found["used"] - found["billed"] <= KILLS * spenders.COST.tokens
    assert found["used"] > spenders.MOST - spenders.COST.tokens, "the budget was not spent to its end"
    assert (found["held"], found["kept"]) == (0, found["used"])
