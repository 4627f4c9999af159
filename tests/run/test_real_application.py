"""A small application on the real host: contracts, policy, mTLS and the gateway, in every topology."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from shop import POLICY, up
from supervised import Starter, until

from seamline.kernel.errors import SeamlineError
from seamline.mesh.identity import WorkloadIdentity, new_key_and_csr


@pytest.mark.parametrize("topology", ["monolith", "duo", "services"])
def test_it_answers_the_same_in_every_topology(shop: Starter, topology: str):
    """Front, orders and cart, in one process, two and three; handlers' logs say their module."""
    running = up(shop, topology)
    assert running.get("/mug")["added"] == ["/mug"]
    assert running.get("/")["placed"] == "/mug"

    def said() -> list[dict[str, Any]]:
        return [line for line in running.lines() if line.get("message") == "ann adds /mug"]

    assert until(said)[0]["module"] == "cart"


def test_switching_moves_calls_and_the_public_side(shop: Starter):
    """While a shopper shops: no request fails."""
    running = up(shop, "monolith")
    failures: list[BaseException] = []
    enough = threading.Event()

    def shops() -> None:
        while not enough.is_set():
            try:
                running.get("/")
            except OSError as error:
                failures.append(error)

    shopper = threading.Thread(target=shops)
    shopper.start()
    for topology in ("services", "duo", "monolith"):
        assert running.ask("switch", topology=topology)["drained"] is True
    enough.set()
    shopper.join()
    assert failures == []


def test_top_counts_the_calls_of_each_edge(shop: Starter):
    """Caller, callee, method; calls a second and latency; processor and memory of each process."""
    running = up(shop, "services")
    enough = threading.Event()

    def shops() -> None:
        while not enough.is_set():
            running.get("/")

    shopper = threading.Thread(target=shops)
    shopper.start()
    top = running.ask("top", interval_s=0.5)
    enough.set()
    shopper.join()
    edges = {(edge["caller"], edge["callee"], edge["method"]): edge for edge in top["edges"]}
    place = edges["front", "orders", "Orders.place"]
    assert place["calls_per_s"] > 0
    assert 0 < place["p50_ms"] <= place["p99_ms"]
    assert ("orders", "cart", "Carts.lines") in edges
    until(lambda: all(each["rss_mb"] > 1 for each in running.replicas().values()), "a heartbeat of each")


def test_idempotent_calls_survive_the_death_of_their_callee(shop: Starter):
    """SIGKILL to the callee: the call waits for the new process or is tried again."""
    running = up(shop, "services")
    os.kill(running.pids()["orders"], signal.SIGKILL)
    until(lambda: running.replicas()["orders"]["state"] == "ready" and running.replicas()["orders"]["restarts"])
    assert until(lambda: running.get("/"), "an answer")["placed"] == "nothing"


def test_a_policy_that_is_wrong_is_found_before_anything_serves(shop: Starter):
    """The worker's check speaks through the supervisor, with code and place."""
    (shop.folder / "policy" / "shop.cedar").write_text('permit (principal == Module::"frnt", action, resource);')
    running = shop(topology="services", host_factory="")
    assert running.wait() != 0
    failed = running.lines()[-1]["failed"]
    assert failed["code"].startswith("SL4")
    assert "frnt" in json.dumps(failed)


def test_a_broken_module_does_not_take_down_what_runs(shop: Starter):
    """A syntax error in a module: the switch is rolled back and the shop answers."""
    running = up(shop, "monolith")
    (shop.folder / "shop" / "orders" / "module.py").write_text("this is not Python")
    with pytest.raises(SeamlineError) as caught:
        running.ask("switch", topology="services")
    assert caught.value.code == "SL5004"
    assert "orders" in caught.value.fact
    assert running.get("/")["placed"] == "nothing"


@pytest.mark.parametrize(("weights", "answers"), [("1 = 1", "nothing"), ("2 = 1", "new")])
def test_a_canary_gets_the_calls_that_its_weight_says(shop: Starter, weights: str, answers: str):
    """A second replica runs the code that is there when it starts; `[mesh]` says which version is called."""
    file = shop.folder / "shop" / "orders" / "module.py"
    old = file.read_text().replace("provides=Orders)", 'provides=Orders, version="1")')
    assert 'version="1"' in old
    file.write_text(old)
    shop.write(more=f"[mesh.contracts.Orders.canary]\n{weights}")
    running = up(shop, "services")
    assert running.get("/")["placed"] == "nothing"
    file.write_text(old.replace('version="1"', 'version="2"').replace('return "nothing"', 'return "new"'))
    running.ask("scale", replicas={"orders": 2})
    assert {running.get("/")["placed"] for _ in range(20)} == {answers}


@pytest.mark.parametrize("topology", ["monolith", "services"])
def test_a_policy_takes_effect_while_it_runs(shop: Starter, topology: str):
    """`seamline policy reload`: what is no longer permitted is refused; a mistake changes nothing."""
    running = up(shop, topology)
    file = shop.folder / "policy" / "shop.cedar"
    reload = [sys.executable, "-m", "seamline.cli", "policy", "reload", "--app", str(shop.folder)]
    assert running.get("/mug")["added"] == ["/mug"]
    file.write_text(POLICY.replace("permit", "permti", 1))
    assert subprocess.run(reload, capture_output=True, timeout=60, check=False).returncode == 6
    assert running.get("/pan")["added"]
    file.write_text("forbid(principal, action, resource);")
    assert subprocess.run(reload, capture_output=True, timeout=60, check=False).returncode == 0
    with pytest.raises(urllib.error.HTTPError) as refused:
        running.get("/pot")
    assert refused.value.code == 403
    refused.value.close()


def test_an_identity_for_a_test_is_trusted_by_the_mesh(shop: Starter, tmp_path: Path):
    """`issue` signs for the test's own key; a worker's mesh port takes it, and shows its own SVID."""
    running = up(shop, "services", testing=True)
    key, request = new_key_and_csr()
    issued = running.ask("issue", csr=request.decode(), module="front")
    identity = WorkloadIdentity("shop.local", "shop")
    identity.set_bundle(issued["bundle"].encode())
    identity.install("front", key, issued["chain"].encode())
    mesh = running.replicas()["cart"]["mesh"]
    host, _, port = mesh.rpartition(":")
    with _connected(identity, host, int(port)) as connection:
        assert connection.version() == "TLSv1.3"
        assert identity.authenticate(connection) == "cart"  # pyright: ignore[reportArgumentType]


def test_a_rotated_root_breaks_no_call(shop: Starter):
    """A new root is trusted everywhere before anything is signed with it; new processes get both."""
    running = up(shop, "services")
    running.ask("rotate")
    assert running.get("/mug")["added"] == ["/mug"]
    running.ask("restart", workload="orders")
    assert running.get("/")["placed"] == "/mug"


def _connected(identity: WorkloadIdentity, host: str, port: int) -> ssl.SSLSocket:
    import socket

    raw = socket.create_connection((host, port), timeout=20)
    return identity.client_context("front").wrap_socket(raw, server_hostname=identity.server_name("cart"))
