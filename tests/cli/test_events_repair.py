"""``seamline events verify`` and ``repair`` on a log in which a record was changed behind its back."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

FILES = {
    "stalldamage/__init__.py": "",
    "stalldamage/stall/__init__.py": """
from seamline import Event

class Sold(Event, key="sku"):
    sku: str
    number: int
""",
    "stalldamage/stall/module.py": """
from seamline import Events, Module
from stalldamage.stall import Sold

module = Module("stall")

@module.startup
async def sell(events: Events) -> None:
    await events.publish_all([Sold(sku="mug", number=number) for number in range(4)])
""",
    "stalldamage/books/__init__.py": "",
    "stalldamage/books/module.py": """
from seamline import Module
from stalldamage.stall import Sold

module = Module("books")

@module.on(Sold, outside=True)
async def enter(event: Sold) -> None: ...
""",
    "policy/events.cedar": """
permit(principal, action == Action::"events", resource == Module::"stall");
""",
}
TOML = '[app]\nname = "stalldamage"\nmodules = [{}]\n'


class Stall:
    """The application, by its command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in FILES.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def run(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "seamline.cli", *words, "--app", str(self.folder)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def up(self, *modules: str) -> None:
        named = ", ".join(f'"stalldamage.{module}"' for module in modules)
        (self.folder / "seamline.toml").write_text(TOML.format(named))
        self.run("up", "--detach", "--port", "0")

    def until(self, *, handled: int, behind: int | None) -> None:
        """The lag comes down a moment after the handler has ended."""
        row: dict[str, Any] = {}
        for _ in range(100):
            (row,) = json.loads(self.run("events", "lag", "--json"))
            if (row["handled"], row["events"]) == (handled, behind):
                return
            time.sleep(0.1)
        pytest.fail(f"{row}")


def test_a_record_that_was_changed_is_named_set_aside_and_passed(tmp_path: Path):
    """Readers stop before it; after the repair they are handed all the others."""
    stall = Stall(tmp_path)
    stall.up("stall")
    stall.run("down")
    (log,) = (tmp_path / ".seamline").rglob("stall.sqlite3")
    with closing(sqlite3.connect(log)) as db:
        db.execute("UPDATE seamline_log SET body = replace(body, 'mug', 'cup') WHERE position = 2")
        db.commit()
    stall.up("stall", "books")
    try:
        stall.until(handled=1, behind=None)  # how far it is behind cannot be known
        damaged = stall.run("events", "verify", status=1)
        assert "stall" in damaged
        assert "2-2" in damaged
        assert "SL7205" in stall.run("events", "tail", "stall", status=9)
        assert "2-2" in stall.run("events", "repair", "stall")
        assert stall.run("events", "verify") == "every record is as it was written\n"
        stall.until(handled=7, behind=0)
        assert '"sku":"cup"' not in stall.run("events", "tail", "stall")
    finally:
        stall.run("down")
