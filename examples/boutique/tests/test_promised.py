"""What the boutique's contracts promise is checked in as contracts.lock.json, and `seamline check` holds them to it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

APP = Path(__file__).resolve().parents[1]


def check(app: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "seamline.cli", "check", "--app", str(app), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["ok"] else 1)
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The boutique in a folder of its own, to be changed."""
    app = tmp_path / "app"
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns(".seamline", "__pycache__", "tests"))
    return app


def test_seamline_check_finds_nothing():
    """Settings, contracts, wiring, imports, permits, and all that the lock file promises."""
    assert (APP / "contracts.lock.json").is_file()
    assert check(APP)["findings"] == []


def test_the_lock_says_what_the_contracts_promise_today(copy: Path):
    """A change that breaks nobody is promised with the commit that makes it: `seamline contracts lock`."""
    lock = copy / "contracts.lock.json"
    before = lock.read_text("utf-8")
    subprocess.run([sys.executable, "-m", "seamline.cli", "contracts", "lock", "--app", str(copy)], check=True)
    assert lock.read_text("utf-8") == before


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (
            "payments/__init__.py",
            'EXPIRED = "expired"',
            'EXPIRED = "old"',
            "fault CardDeclined reason: may be 'old' now",
        ),
        ("shipping/__init__.py", "async def quote(", "async def price(", "method Shipping.quote: removed"),
    ],
)
def test_a_change_that_breaks_a_promise_is_found(copy: Path, file: str, old: str, new: str, said: str):
    """A value that an answer may have, and a method, each under another name."""
    path = copy / "boutique" / file
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    broken = [each["fact"] for each in check(copy)["findings"] if each["code"] == "SL2113"]
    assert any(fact.startswith(said) for fact in broken)
