"""The shop is disturbed while shoppers order: topologies change, a worker stands still, the database goes away.

Whatever happens, nothing is lost or done twice: the books balance once all is quiet.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import psutil
import pytest
from examples.boutique.tests.shop import Shop
from examples.boutique.tests.test_crash_sweep import bought, database, declined

if TYPE_CHECKING:
    from tests.conftest import PostgresqlServer

__all__ = ["database"]

pytestmark = pytest.mark.needs_server


def nothing() -> None:
    """No fuse is lit."""


class Shoppers:
    """Threads that order again and again, each time as somebody new."""

    def __init__(self, shop: Shop, count: int) -> None:
        self.ended: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self._shop = shop
        self._closed = threading.Event()
        self._threads = [threading.Thread(target=self._order, args=(number,)) for number in range(count)]

    def _order(self, number: int) -> None:
        visit = 0
        while not self._closed.is_set():
            scenario = declined if visit % 4 == 3 else bought
            try:
                scenario(self._shop, f"shopper-{number}-{visit:05}", nothing)
            except BaseException as error:  # told by who waits for the threads
                self.errors.append(error)
                return
            self.ended[scenario.__name__] += 1
            visit += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        for thread in self._threads:
            thread.join(120)
        if self.errors:
            raise self.errors[0]

    def until(self, orders: int) -> None:
        """Until so many more orders have ended."""
        wanted, end = self.ended.total() + orders, time.monotonic() + 90
        while self.ended.total() < wanted and not self.errors:
            assert time.monotonic() < end, f"{self.ended} after 90 s\n{self._shop.log()}"
            time.sleep(0.01)


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgresql", marks=pytest.mark.torture)])
def test_topologies_change_while_sagas_and_events_are_under_way(
    tmp_path: Path, store: str, request: pytest.FixtureRequest
):
    """From one process to many, to two and back while shoppers order: no request fails, nothing is lost or doubled."""
    url = request.getfixturevalue("database") if store == "postgresql" else ""
    with Shop(tmp_path, "monolith", url) as shop:
        with Shoppers(shop, 3) as shoppers:
            for topology in ("services", "duo", "monolith"):
                shoppers.until(3)
                shop.ask("switch", topology=topology)
            shoppers.until(3)
        assert shop.failed == []
        assert shop.unbalanced() == []


def stand_still(shop: Shop, commit: int, when: str) -> None:
    shop.ask("scale", replicas={"checkout": 2})
    before, patient_s = shop.pids("checkout"), shop.request_timeout_s

    def light() -> None:
        shop.arm("checkout", commit, when, signal=signal.SIGSTOP)
        shop.request_timeout_s = 2  # who is not answered asks again, and comes to the other worker in the end

    bought(shop, "shopper-stopped", light)
    assert shop.disarm()
    (stopped,) = [pid for pid in before if psutil.Process(pid).status() == psutil.STATUS_STOPPED]
    os.kill(stopped, signal.SIGCONT)
    shop.request_timeout_s = patient_s
    bought(shop, "shopper-after", nothing)
    assert shop.unbalanced() == []
    assert shop.pids("checkout") == before


@pytest.mark.parametrize("commit", [4, *(pytest.param(each, marks=pytest.mark.torture) for each in (1, 2, 3, 5, 6))])
def test_a_worker_that_stands_still_loses_its_sagas_to_another(tmp_path: Path, database: str, commit: int):
    """SIGSTOP in the middle of an order, for longer than the lease: another worker finishes it once the database has
    given up what the first holds, and when that one goes on it finds that it may not."""
    with Shop(tmp_path, "duo", database, RUN_HUNG_AFTER_S=3600, MESH_TIMEOUT_S=3) as shop:
        stand_still(shop, commit, "before")


@pytest.mark.torture
@pytest.mark.parametrize("commit", [2, 4, 6])
def test_a_worker_that_stands_still_loses_its_sagas_on_files_too(tmp_path: Path, commit: int):
    """After the commit: in the middle of one it would hold SQLite's lock, and everybody would wait until it goes on."""
    with Shop(tmp_path, "services", RUN_HUNG_AFTER_S=3600, MESH_TIMEOUT_S=3) as shop:
        stand_still(shop, commit, "after")


def test_the_database_is_restarted_while_shoppers_order(
    tmp_path: Path, database: str, postgres_server: PostgresqlServer
):
    """It ends as by a crash, twice, and comes back: orders go on where they were."""
    with Shop(tmp_path, "duo", database) as shop:
        with Shoppers(shop, 3) as shoppers:
            for _ in range(2):
                shoppers.until(3)
                postgres_server.restart()
            shoppers.until(6)
        assert shop.unbalanced() == []


def test_the_broker_is_restarted_while_shoppers_order(tmp_path: Path, database: str, postgres_server: PostgresqlServer):
    """It ends as by a crash, twice: what the orders said waits in the modules' own files and arrives once."""
    with Shop(tmp_path, "duo", EVENTS_BROKER=database) as shop:
        with Shoppers(shop, 3) as shoppers:
            for _ in range(2):
                shoppers.until(3)
                postgres_server.restart()
            shoppers.until(3)
        assert shop.unbalanced(60) == []
        answers = shop.ask("events", module=None, operation="topics", arguments={})["answers"]
        assert {topic["transport"] for answer in answers for topic in answer["result"] or ()} == {"PostgreSQL"}


@pytest.mark.torture
@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_workers_are_killed_and_topologies_changed_for_a_minute(
    tmp_path: Path, store: str, request: pytest.FixtureRequest
):
    """Everything at once; shoppers may have to send a form again, and the books balance."""
    lot = random.Random(5)
    url = request.getfixturevalue("database") if store == "postgresql" else ""
    with Shop(tmp_path, "services", url) as shop:
        with Shoppers(shop, 4) as shoppers:
            for topology in ("duo", "monolith", "services", "duo", "services"):
                for _ in range(4):
                    shoppers.until(2)
                    victims = ("checkout", "decisions", "inventory", "payments", "shipping", "cart", "emails")
                    module = lot.choice(victims)
                    with suppress(ProcessLookupError):
                        os.kill(lot.choice(shop.pids(module)), signal.SIGKILL)
                shop.ask("switch", topology=topology)
        assert shop.unbalanced(60) == []
