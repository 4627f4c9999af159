"""The promise, on the whole shop: its topology changes while shoppers shop, and nobody notices.

This runs what a user would type: ``seamline up --detach``, ``seamline load --switches``, ``seamline down``.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from examples.boutique.tests import balance

SHOP = Path(__file__).parent.parent


class Running:
    """The boutique, started from the command line."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.where = ["--app", str(SHOP), "--data", str(data)]

    def seamline(self, *arguments: str, status: int = 0, timeout_s: float = 280) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "seamline.cli", *arguments, *self.where],
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def json(self, *arguments: str) -> dict[str, Any]:
        return json.loads(self.seamline(*arguments, "--json"))

    def unbalanced(self) -> list[str]:
        """What does not balance once all is quiet."""
        return asyncio.run(balance.settled(self.data, within_s=60))

    def worker(self, module: str) -> int:
        """The process that hosts a module."""
        for workload in self.json("status")["workloads"]:
            if module in workload["modules"]:
                return workload["replicas"][0]["pid"]
        raise AssertionError(module)


@pytest.fixture
def topology() -> str:
    """Which the shop starts in."""
    return "monolith"


@pytest.fixture
def shop(tmp_path: Path, topology: str) -> Iterator[Running]:
    running = Running(tmp_path / "data")
    running.seamline("up", "--detach", "--listen", "127.0.0.1:0", "--topology", topology)
    yield running
    running.seamline("down")


@pytest.mark.parametrize("count", [6, pytest.param(10, marks=pytest.mark.torture)])
def test_switches_under_load_fail_no_request(shop: Running, count: int):
    """Switches between one process and one for each module while six shoppers shop: 0 failed, by the command's own
    count; and every order that was under way is complete or undone."""
    report = shop.json("load", "--users", "6", "--switches", str(count), "--between", "services,monolith")
    assert report["failed"] == 0, report
    assert len(report["switches"]) == count
    assert all(switch["failed_meanwhile"] == 0 and switch["requests_meanwhile"] > 0 for switch in report["switches"])
    assert report["requests"] > 50 * count
    assert shop.unbalanced() == []


@pytest.mark.parametrize("topology", ["services"])
def test_a_killed_worker_of_readonly_methods_costs_no_request(shop: Running):
    """kill -9 of the catalog: what it had in hand is asked again, what comes meanwhile waits for its successor."""
    before = shop.worker("catalog")
    load = subprocess.Popen(
        [sys.executable, "-m", "seamline.cli", "load", "--users", "4", "--duration", "8", "--json", *shop.where],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        time.sleep(2)
        psutil.Process(before).send_signal(signal.SIGKILL)
        output, _ = load.communicate(timeout=60)
    finally:
        load.kill()
        load.wait()
    report = json.loads(output)
    assert report["requests"] > 100
    assert report["failed"] == 0, report
    assert shop.worker("catalog") != before
    assert shop.json("load", "--requests", "60")["failed"] == 0


@pytest.mark.torture
@pytest.mark.parametrize("topology", ["services"])
def test_a_sweep_of_kills_leaves_a_shop_that_serves(shop: Running):
    """Twenty workers killed one after another under load: no more fails than what each had in hand."""
    lot = random.Random(11)
    victims = ["catalog", "cart", "currency", "payments", "shipping", "emails", "checkout", "decisions"]
    victims += ["recommendations", "ads"]
    load = subprocess.Popen(
        [sys.executable, "-m", "seamline.cli", "load", "--users", "4", "--duration", "75", "--json", *shop.where],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for _ in range(20):
            time.sleep(3)
            psutil.Process(shop.worker(lot.choice(victims))).send_signal(signal.SIGKILL)
        output, _ = load.communicate(timeout=120)
    finally:
        load.kill()
        load.wait()
    report = json.loads(output)
    assert report["requests"] > 1000
    assert report["failed"] <= 20 * 4
    assert shop.json("load", "--requests", "200")["failed"] == 0
    assert shop.unbalanced() == []


@pytest.mark.torture
def test_forty_switches_between_three_topologies_fail_no_request(shop: Running):
    """The promise, for ten minutes if need be."""
    for pair in ("duo,services", "monolith,duo"):
        report = json.loads(
            shop.seamline("load", "--users", "8", "--switches", "20", "--between", pair, "--json", timeout_s=900)
        )
        assert report["failed"] == 0, report
    assert shop.unbalanced() == []
