"""``seamline sagas`` against a real application, started by the command line itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.cli.kiosk import Asked, running

FILES = {
    "kiosksagas/__init__.py": "",
    "kiosksagas/stall/__init__.py": "",
    "kiosksagas/stall/module.py": """
from pathlib import Path
from seamline import Database, Fault, Module
from seamline.sagas import Saga, Sagas

module = Module("stall")
broken = Path(__file__).parent / "broken"

class Refused(Fault):
    by: str

async def hold(cents: int) -> str:
    return f"held {cents}"

async def let_go(held: str) -> None:
    if broken.exists():
        raise ValueError("the bank [is] closed")

@module.saga
async def sell(s: Saga, cents: int) -> str:
    await s.step(hold, cents, undo=let_go)
    s.note(cents=cents)
    said = await s.approval("fraud", cents=cents)
    if not said.approved:
        raise Refused(by=said.by)
    return await s.wait_signal("address", str)

@module.startup
async def begin(sagas: Sagas, db: Database) -> None:
    async with db.transaction():
        for cents in (5, 900, 901):
            await sagas.start(sell, cents, key=f"order-{cents}")

@module.saga(cron="0 3 1 1 *")
async def yearly(s: Saga) -> None:
    pass

@module.shutdown
async def end() -> None:
    pass
""",
    "kiosksagas/desk/__init__.py": """
from seamline import Contract

class Desk(Contract):
    async def nothing(self) -> None: ...
""",
    "kiosksagas/desk/module.py": """
from seamline import Module
from kiosksagas.desk import Desk

module = Module("desk", provides=Desk)

@module.service
class DeskService(Desk):
    async def nothing(self) -> None:
        pass
""",
    "kiosksagas/stall/broken": "",
    "seamline.toml": """
[app]
name = "kiosksagas"
modules = ["kiosksagas.stall", "kiosksagas.desk"]

[sagas]
step_attempts = 2
step_backoff_s = 0.01
""",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with running(tmp_path_factory.mktemp("kiosk"), FILES) as root:
        yield root


@pytest.fixture
def asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> Asked:
    return Asked("sagas", folder, capsys)


def by_key(asked: Asked, key: str) -> dict[str, Any]:
    (found,) = asked.json("list", "--key", key)
    return found


def test_a_person_finds_reads_and_finishes_a_saga(asked: Asked):
    """By its key; what it waits for is told; the answer and the signal bring it to its end."""
    waiting = asked.until(lambda rows: rows and rows[0]["waiting"], "list", "--key", "order-5")[0]
    assert waiting["waiting"] == ["approval fraud"]
    assert waiting["module"] == "stall"
    assert waiting["id"] in asked.text("list", "--type", "sell", "--status", "active")
    assert asked.json("approve", waiting["id"], "freud", "--by", "ada")["awaited"] is False
    assert "does not wait for 'freud' now" in asked.text("approve", waiting["id"], "freud", "--by", "ada")
    assert "does not wait" not in asked.text("approve", waiting["id"], "fraud")
    asked.until(lambda row: row["waiting"] == ["signal address"], "show", waiting["id"])
    assert "the data is not a str: Expected `str`, got `int`" in asked.text(
        "signal", waiting["id"], "address", "5", status=9
    )
    assert asked.json("show", waiting["id"])["status"] == "running"  # it waits on
    asked.text("signal", waiting["id"], "address", '"Long Row 5"')
    done = asked.until(lambda row: row["status"] == "succeeded", "show", waiting["id"])
    assert done["input"] == {"cents": 5}
    assert done["result"]["output"] == "Long Row 5"
    assert [each["kind"] for each in done["journal"]] == ["step", "approval", "signal"]
    assert done["notes"] == {"cents": 5}
    shown = asked.text("show", waiting["id"])
    assert "hold" in shown
    assert re.search(r"began  [\d-]+ [\d:]+ UTC\n", shown)
    began = re.search(r"[\d-]+ [\d:]+ UTC", asked.text("list", "--key", "order-5"))
    assert began
    assert [row["key"] for row in asked.json("list", "--key", "order-5", "--since", began[0])] == ["order-5"]
    assert asked.text("list", "--since", "2099-01-01") == "no such sagas\n"
    assert "held 5" in shown
    assert "has ended" in asked.text("cancel", waiting["id"], status=9)


def test_a_stuck_saga_is_flagged_and_goes_on_when_retried(asked: Asked, folder: Path):
    """Its compensation fails until the cause is gone; nothing is dropped meanwhile."""
    saga = by_key(asked, "order-900")["id"]
    asked.text("approve", saga, "fraud", "--by", "bob", "--refuse")
    stuck = asked.until(bool, "list", "--status", "stuck")
    assert stuck[0]["id"] == saga
    assert "the bank [is] closed" in stuck[0]["stuck"]
    assert "[is]" in asked.text("list", "--status", "stuck")
    assert "nothing left to undo at place '99'" in asked.text("retry", saga, "--skip", "99", status=9)
    asked.text("retry", saga)
    assert asked.json("show", saga)["ended"] is None, "the bank is still closed"
    (folder / "kiosksagas/stall/broken").unlink()
    with suppress(AssertionError):  # its own next attempt may come before ours, and end it
        asked.text("retry", saga)
    assert asked.until(lambda row: row["status"] == "failed", "show", saga)["journal"][-1]["kind"] == "undo"


def test_a_cancelled_saga_says_why(asked: Asked):
    """The reason is in its result."""
    saga = by_key(asked, "order-901")["id"]
    asked.text("cancel", saga, "--reason", "enough")
    done = asked.until(lambda row: row["ended"] is not None, "show", saga)
    assert done["status"] in {"cancelled", "undoing"}
    assert re.search(r"SL7307: saga .* was cancelled: enough\n", asked.text("show", saga))


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["show", "nobody"], 2, "there is no saga 'nobody'"),
        (["list", "--status", "asleep"], 9, "there is no status 'asleep'"),
        (["list", "--since", "yesterday"], 9, "'yesterday' is no time"),
        (["list", "--module", "nowhere"], 7, "there is no module 'nowhere'"),
        (["signal", "x", "y", "{"], 2, "is not JSON"),
    ],
)
def test_what_is_asked_wrongly_is_told(asked: Asked, words: list[str], status: int, says: str):
    """A sentence, and a status that says whose mistake it is."""
    assert says in asked.text(*words, status=status)
