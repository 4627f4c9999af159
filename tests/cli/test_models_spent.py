"""``seamline models keys spent`` tells what the ledger says, without any gateway running."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from pathlib import Path
from typing import Any

from seamline.cli import app
from seamline.models.gateway.budgets import Budgets
from seamline.models.gateway.keys import Keys, caller
from seamline.models.gateway.ledger import budgets_beside
from seamline.models.gateway.prices import Cost
from seamline.models.gateway.quota import Limit

TOML = '[app]\nname = "shop"\nmodules = []\n'


def said(folder: Path, *words: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert app.run(["models", "keys", "spent", "--app", str(folder), *words]) == 0
    return out.getvalue()


def test_what_was_spent_is_told(tmp_path: Path):
    """Of limits and of every key, by the keys' names; nothing where nothing was."""
    (tmp_path / "seamline.toml").write_text(TOML)
    assert said(tmp_path) == "Nothing was spent.\n"
    path = tmp_path / ".seamline" / "ai-keys.db"
    keys = Keys(path)
    _, key = keys.make("search team")
    keys.close()

    async def spend() -> None:
        limit = Limit(name="people", by="user", unit="money", most=10**9, per="day", models=("fast",))
        budgets = Budgets(budgets_beside(path), [limit])
        await budgets.start()
        for _ in range(3):
            (await budgets.reserve(caller(key, "ann"), "fast", Cost(10, 10**8))).settle(Cost(7, 25 * 10**6))
        await budgets.close()

    asyncio.run(spend())
    found: list[dict[str, Any]] = json.loads(said(tmp_path, "--json"))
    told = {(each["of"], each["unit"], each["per"]): each for each in found}
    assert told["user ann", "money", "day"]["used"] == "0.075"
    assert told["user ann", "money", "day"]["models"] == ["fast"]
    assert told["key search team", "tokens", "month"]["used"] == "21"
    assert told["key search team", "requests", "month"]["used"] == "3"
    assert {each["held"] for each in found} == {"0"}
    assert "key search team" in said(tmp_path, "--all")
