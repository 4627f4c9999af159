"""A checkout is killed by SIGKILL at every write of its journal and every call it makes; then it is recovered."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

ROOT = Path(__file__).parent.parent.parent


class Forker:
    """Runs jobs, one after another, each in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.sagas.sweep_child"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, **job: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)
        if self._process.stdout is not None:
            self._process.stdout.close()


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    forker = Forker()
    yield forker
    forker.close()


def parcels(url: str) -> int:
    path = make_url(url).database
    assert path is not None
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT count(*) FROM parcels").fetchone()[0]


def balance(others: Path) -> tuple[int, int, int]:
    """What is in stock, what was earned, and how many charges there were."""
    with sqlite3.connect(others) as connection:
        (left,) = connection.execute("SELECT left FROM stock").fetchone()
        earned, charges = connection.execute(
            "SELECT coalesce(sum(cents), 0), count(*) FILTER (WHERE cents > 0) FROM money"
        ).fetchone()
    return left, earned, charges


def sweep(forker: Forker, folder: Path, *, ships: bool, honour: bool = True) -> Iterator[tuple[int, Any, str]]:
    """Kill at one point after the other, and recover: the point, what was found, and how it ended."""
    point, killed = 0, True
    while killed:
        point += 1
        place = folder / str(point)
        place.mkdir()
        url, others = f"sqlite:///{place / 'shop.sqlite3'}", place / "others.sqlite3"
        job = {"url": url, "others": str(others), "key": "o1", "ships": ships, "honour": honour}
        first = forker.run(**job, at=point)
        killed = first["killed"]
        last = forker.run(**job, at=0) if killed else first
        assert last["status"] == 0, (point, last)
        yield point, (balance(others), parcels(url)), last["said"]


def test_a_checkout_is_done_once_wherever_its_process_is_killed(forker: Forker, tmp_path: Path):
    """One run for each point: one piece less in stock, one charge, one parcel."""
    points = 0
    for point, found, said in sweep(forker, tmp_path, ships=True):
        assert found == ((9, 500, 1), 1), (point, said)
        assert said.startswith("charge 1")
        points = point
    assert points > 12, "the sweep has lost its points"


def test_a_checkout_that_fails_is_undone_once_wherever_its_process_is_killed(forker: Forker, tmp_path: Path):
    """One run for each point: all pieces in stock, the charge given back, no parcel."""
    points = 0
    for point, found, said in sweep(forker, tmp_path, ships=False):
        assert found == ((10, 0, 1), 0), (point, said)
        assert said.startswith("not shipped")
        points = point
    assert points > 20, "the sweep has lost its points"


def test_the_sweep_sees_effects_that_happen_twice(forker: Forker, tmp_path: Path):
    """The harness itself: where the other modules do not honour keys, some kill makes them do a thing twice."""
    found = [found for _, found, _ in sweep(forker, tmp_path, ships=True, honour=False)]
    assert any(each != ((9, 500, 1), 1) for each in found)
