"""Changes while it runs: topology, replicas, restarts, sources; and changes that do not come to be."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path
from typing import Any, Self

import pytest
from supervised import Running, Starter, alive, until

from seamline.kernel.errors import SeamlineError


class Shopper(threading.Thread):
    """Asks again and again, on a new connection each time; keeps what was answered and what was not."""

    def __init__(self, running: Running) -> None:
        super().__init__()
        self._running = running
        self._enough = threading.Event()
        self.workloads: list[str] = []
        self.failures: list[BaseException] = []

    def run(self) -> None:
        while not self._enough.is_set():
            try:
                self.workloads.append(self._running.get()["workload"])
            except OSError as error:
                self.failures.append(error)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self.join()


def test_switching_under_load_refuses_nobody(start: Starter):
    """Ten switches; every connection is answered by the one topology or the other."""
    running = start().until_ready()
    with Shopper(running) as one, Shopper(running) as two:
        for turn in range(10):
            result = running.ask("switch", topology=("services", "monolith")[turn % 2])
            assert result["drained"] is True
    assert (one.failures, two.failures) == ([], [])
    assert {"all", "front"} <= {*one.workloads, *two.workloads}
    assert running.status()["topology"] == "monolith"
    assert list(running.pids()) == ["all"]


def test_a_switch_reports_what_it_did(start: Starter):
    """Started, stopped, kept; a workload with the same modules keeps its process."""
    running = start(topology="services").until_ready()
    before = running.pids()
    result = running.ask("switch", topology="duo")
    assert result["topology"] == "duo"
    assert (result["started"], result["stopped"], result["kept"]) == (["edge"], ["front", "cart"], ["orders"])
    assert result["seconds"] > 0
    after = running.pids()
    assert after == {"edge": after["edge"], "orders": before["orders"]}
    assert not alive(before["front"])
    assert sorted(running.get()["known"]) == ["cart", "front", "orders"]


def test_a_switch_waits_for_what_is_in_flight(start: Starter):
    """The slow request is answered by the old gateway while the new one serves the rest."""
    running = start().until_ready()
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(running.get("/slow")))
    asking.start()
    until((running.data / "slow").exists)
    switching = threading.Thread(target=lambda: answers.append(running.ask("switch", topology="services")))
    switching.start()
    until(lambda: running.get()["workload"] == "front", "the new gateway")
    with pytest.raises(SeamlineError) as caught:
        running.ask("switch", topology="duo")
    assert caught.value.code == "SL5005"
    (running.data / "go").touch()
    asking.join()
    switching.join()
    assert answers[0]["workload"] == "all"
    assert answers[1]["drained"] is True


def test_a_request_beyond_the_deadline_is_cut_off_and_told(start: Starter):
    """The switch ends with ``drained`` false."""
    text = (start.folder / "seamline.toml").read_text().replace("drain_timeout_s = 5", "drain_timeout_s = 0.3")
    (start.folder / "seamline.toml").write_text(text)
    running = start().until_ready()
    asking = threading.Thread(target=running.get_cut_off, args=("/slow",))
    asking.start()
    until((running.data / "slow").exists)
    assert running.ask("switch", topology="services")["drained"] is False
    asking.join()
    assert running.get()["workload"] == "front"


@pytest.mark.parametrize(
    ("order", "run", "says"),
    [
        ({"orders": "raise"}, "", "SL2999: module.py:3: the module is broken. Mend it."),
        ({"orders": "exit"}, "", "exit status 13"),
        ({"orders": "hang"}, "ready_timeout_s = 1", "was not ready within 1 s"),
    ],
)
def test_a_failed_switch_changes_nothing(start: Starter, order: dict[str, str], run: str, says: str):
    """The new ones go, the old ones serve on with their processes, and the error says why."""
    running = start().until_ready()
    before = running.pids()
    start.order(**order)
    start.write(run=run)
    with Shopper(running) as shopper, pytest.raises(SeamlineError) as caught:
        running.ask("switch", topology="services")
    assert caught.value.code == "SL5004"
    assert "what ran before still runs" in caught.value.fact
    assert says in str(caught.value)
    assert shopper.failures == []
    assert running.pids() == before
    assert running.status()["topology"] == "monolith"
    assert running.get()["workload"] == "all"
    start.order()
    start.write()
    running.ask("switch", topology="services")
    assert running.get()["workload"] == "front"


def test_stopping_in_the_middle_of_a_switch_stops_everything(start: Starter):
    """Also the workloads that were about to start."""
    running = start().until_ready()
    start.order(orders="hang")
    refused: list[BaseException] = []

    def switch() -> None:
        try:
            running.ask("switch", topology="services")
        except SeamlineError as error:
            refused.append(error)

    switching = threading.Thread(target=switch)
    switching.start()
    pids = until(lambda: len(running.pids()) == 4 and all(running.pids().values()) and running.pids())
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    switching.join()
    assert len(refused) == 1
    assert not any(map(alive, pids.values()))


def test_stopping_while_a_switch_drains_finishes_what_is_in_flight(start: Starter):
    """The old gateway's slow request is still answered: the drain that the switch began goes on."""
    running = start().until_ready()
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(running.get("/slow")))
    asking.start()
    until((running.data / "slow").exists)
    switching = threading.Thread(target=lambda: switch_that_is_broken_off(running))
    switching.start()
    until(lambda: running.get()["workload"] == "front", "the new gateway")
    running.signal(signal.SIGTERM)
    until(lambda: "stopping: finishing" in running.messages())
    (running.data / "go").touch()
    assert running.wait() == 0
    asking.join()
    switching.join()
    assert answers[0]["workload"] == "all"


def switch_that_is_broken_off(running: Running) -> None:
    """A switch that ends with the supervisor."""
    with contextlib.suppress(SeamlineError):
        running.ask("switch", topology="services")


def test_scaling_adds_and_drains(start: Starter):
    """Up and down by module, without touching those that stay; nonsense is refused."""
    running = start(topology="services").until_ready()
    before = running.pids()
    assert running.ask("scale", replicas={"orders": 3})["started"] == ["orders#1", "orders#2"]
    assert len(running.get()["known"]["orders"]) == 3
    assert running.ask("scale", replicas={"orders": 2})["stopped"] == ["orders#2"]
    assert len(running.get()["known"]["orders"]) == 2
    assert running.pids()["orders"] == before["orders"]
    for replicas in ({"orders": 0}, {"basket": 2}):
        with pytest.raises(SeamlineError) as caught:
            running.ask("scale", replicas=replicas)
        assert caught.value.code == "SL5006"


def test_a_restart_gives_new_processes_and_refuses_nobody(start: Starter):
    """One workload, named by its module, or all."""
    running = start(topology="services").until_ready()
    before = running.pids()
    with Shopper(running) as shopper:
        assert running.ask("restart", workload="cart")["started"] == ["cart"]
        after = running.pids()
        assert after["cart"] != before["cart"]
        assert (after["front"], after["orders"]) == (before["front"], before["orders"])
        running.ask("restart")
    assert shopper.failures == []
    assert not set(running.pids().values()) & set(after.values())


def test_a_module_can_be_hosted_outside(start: Starter):
    """Callers are sent to the test's own process; the workload goes, and comes back."""
    running = start(testing=True, topology="services").until_ready()
    assert running.ask("external", endpoints={"orders": "127.0.0.1:9"})["stopped"] == ["orders"]
    assert running.get()["known"]["orders"] == [9]
    assert running.ask("external", endpoints={})["started"] == ["orders"]
    assert running.get()["known"]["orders"] != [9]


def test_a_module_can_be_outside_from_the_start(start: Starter):
    running = start(topology="monolith", external={"orders": ["127.0.0.1", 9]}).until_ready()
    assert running.get()["modules"] == ["front", "cart"]
    assert running.get()["known"]["orders"] == [9]


def test_a_switch_reads_the_settings_again(start: Starter):
    """A topology written since the start can be switched to; a file that is wrong changes nothing."""
    running = start().until_ready()
    start.write(more="[topologies.pair]\nleft = ['front']\nright = '*'")
    running.ask("switch", topology="pair")
    assert sorted(running.pids()) == ["front", "right"]
    start.write(more="[topologies.bad]\nleft = ['frnt']")
    with pytest.raises(SeamlineError) as caught:
        running.ask("switch", topology="monolith")
    assert caught.value.code == "SL1006"
    assert sorted(running.pids()) == ["front", "right"]


def write_sources(folder: Path) -> Path:
    for module in ("front", "cart", "orders"):
        (folder / "shop" / module).mkdir(parents=True)
        (folder / "shop" / module / "module.py").write_text("")
    return folder / "shop"


def test_reload_restarts_what_changed(start: Starter):
    """An edit inside one module replaces its workload alone; a policy needs no new process."""
    shop = write_sources(start.folder)
    (start.folder / "policy").mkdir()
    running = start(topology="services", reload=True).until_ready()
    before = running.pids()
    until(lambda: _touch(shop / "cart" / "module.py") or "restarted cart in" in running.messages(), "the restart")
    after = running.pids()
    assert after["cart"] != before["cart"]
    assert (after["front"], after["orders"]) == (before["front"], before["orders"])
    until(lambda: _touch(start.folder / "policy" / "a.cedar") or "policy reloaded" in running.messages())
    assert running.pids()["front"] == after["front"]


def test_reload_keeps_what_runs_when_the_change_is_wrong(start: Starter):
    """The error is printed; mended, it is taken up."""
    shop = write_sources(start.folder)
    running = start(topology="services", reload=True).until_ready()
    before = running.pids()
    start.order(cart="raise")
    until(lambda: _touch(shop / "cart" / "module.py") or "SL2999" in running.messages(), "the error")
    assert "what ran before still runs" in running.messages()
    until(lambda: running.status()["changing"] is False)
    start.order()
    until(lambda: _touch(shop / "cart" / "module.py") or "restarted cart in" in running.messages(), "the restart")
    assert running.pids()["front"] == before["front"]
    assert running.get()["workload"] == "front"


def _touch(path: Path) -> None:
    path.write_text(f"# {os.times().elapsed}\n")
