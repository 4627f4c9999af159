"""A running application is observed from its first second, and does not notice when it is not."""

from __future__ import annotations

import os
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shop import up
from supervised import Running, Starter, alive, until

from seamline.observe.store import TelemetryReader
from seamline.observe.store.query import LogQuery, TraceQuery

QUIET = '[observe]\notlp_listen = ""\n'


class Watched:
    """An application with an observer, and what is kept of it."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.reader = TelemetryReader(running.data / "telemetry")

    @property
    def pid(self) -> int:
        return self.running.status()["observer"]["pid"]

    def sees(self, question: Callable[[TelemetryReader], Any]) -> Any:
        return until(lambda: question(self.reader), "telemetry")


@pytest.fixture
def watch(shop: Starter) -> Callable[[str], Watched]:
    def begin(topology: str) -> Watched:
        shop.write(more=QUIET)
        return Watched(up(shop, topology, observe=True))

    return begin


@pytest.mark.parametrize("topology", ["monolith", "duo", "services"])
def test_a_request_is_found_again(watch: Callable[[str], Watched], topology: str):
    """Its trace with a span of each module, its log line under the same trace, its counts on every edge, its processes'
    measures, and that it was started: in every topology.
    """
    watched = watch(topology)
    watched.running.get("/mug")
    (line,) = watched.sees(lambda reader: reader.logs(LogQuery(text="adds /mug")).items)
    assert (line.module, line.severity) == ("cart", 9)
    # Each process tells of its own spans when it likes.
    everybody = {"gateway", "front", "cart", "orders"}

    def whole(reader: TelemetryReader) -> bool:
        spans = reader.trace(line.trace_id.hex())
        return len(spans) >= 6 and {each.module for each in spans} == everybody

    watched.sees(whole)
    wanted = {("front", "cart"), ("front", "orders"), ("orders", "cart")}

    def edges(reader: TelemetryReader) -> bool:
        graph = reader.graph(0, time.time_ns() + 10**10)
        return wanted <= {(each.caller, each.callee) for each in graph if each.side == "client" and each.calls}

    watched.sees(edges)
    names = {"process.cpu.time", "process.memory.usage", "seamline.loop.lag", "seamline.workload.up"}
    watched.sees(lambda reader: names <= {each.name for each in reader.metric_names(0)})
    assert watched.sees(lambda reader: reader.marks(0, time.time_ns() + 10**10))[0].title == f"started as {topology}"


def test_the_application_goes_on_when_the_observer_dies(watch: Callable[[str], Watched]):
    """SIGKILL, again and again: no request fails, no worker is restarted, and telemetry is kept again after."""
    watched = watch("services")
    workers = watched.running.pids()
    for _ in range(2):
        before = until(lambda: watched.pid, "an observer")
        os.kill(before, signal.SIGKILL)
        until(lambda: not alive(before))  # noqa: B023  # likewise
        assert watched.running.get("/")["placed"] is not None
        until(lambda: watched.pid not in {0, before}, "a new observer")  # noqa: B023  # asked at once
    watched.running.get("/after")
    watched.sees(lambda reader: reader.logs(LogQuery(text="adds /after")).items)
    assert watched.running.pids() == workers
    assert "telemetry is not kept until it is back" in watched.running.messages()


def test_an_observer_that_stands_still_holds_nobody_up(watch: Callable[[str], Watched]):
    """SIGSTOP: requests are answered, and the application stops in its time."""
    watched = watch("duo")
    pid = until(lambda: watched.pid)
    os.kill(pid, signal.SIGSTOP)
    for _ in range(200):
        watched.running.get("/mug")
    began = time.monotonic()
    watched.running.signal(signal.SIGTERM)
    assert watched.running.wait() == 0
    assert time.monotonic() - began < 20
    assert not alive(pid)


def test_what_is_told_last_is_kept(watch: Callable[[str], Watched]):
    """Requests of the last moment before the end are found after it, when nothing runs any more."""
    watched = watch("duo")
    until(lambda: watched.reader.marks(0, time.time_ns() + 10**10))
    watched.running.get("/last")
    watched.running.signal(signal.SIGTERM)
    assert watched.running.wait() == 0
    (line,) = watched.reader.logs(LogQuery(text="adds /last")).items
    assert len(watched.reader.trace(line.trace_id.hex())) >= 5


def test_the_observer_goes_with_its_supervisor(watch: Callable[[str], Watched]):
    """Also when that is killed."""
    watched = watch("monolith")
    pid = until(lambda: watched.pid)
    watched.running.signal(signal.SIGKILL)
    watched.running.wait()
    until(lambda: not alive(pid))


def test_changes_are_marked(watch: Callable[[str], Watched]):
    """A switch, a scaling, a restart, a policy read again, a crash: each with the modules it concerns."""
    watched = watch("services")
    running = watched.running
    running.ask("policy")
    running.ask("scale", replicas={"cart": 2})
    running.ask("restart", workload="orders")
    os.kill(running.pids()["cart#1"], signal.SIGKILL)
    running.ask("switch", topology="monolith")
    wanted = {
        ("policy", ()), ("scale", ("cart",)), ("restart", ("orders",)), ("switch", ()),
    }  # fmt: skip

    def marked(reader: TelemetryReader) -> bool:
        return wanted <= {(each.kind, tuple(each.modules)) for each in reader.marks(0, time.time_ns() + 10**10)}

    watched.sees(marked)


def test_without_a_store_there_is_no_observer(shop: Starter):
    """``store = false`` and nobody to send to: no process, no socket, no portal."""
    shop.write(more="[observe]\nstore = false\n")
    running = up(shop, "monolith", observe=None)
    status = running.status()
    assert (status["observer"], status["portal"]) == (None, False)
    assert not (running.data / "run" / "observe.sock").exists()
    assert not (running.data / "telemetry").exists()


def test_a_port_that_is_taken_ends_nothing(shop: Starter):
    """Another collector has OTLP's port: it is said, and what the application tells is kept."""
    shop.write(more='[observe]\notlp_listen = "127.0.0.1:0"\n')
    first = Watched(up(shop, "monolith", observe=True))
    first.running.get("/mug")
    first.sees(lambda reader: reader.traces(TraceQuery()).items)


def test_the_shell_of_the_portal_is_there(watch: Callable[[str], Watched]):
    """At the address of the control API, without a session and without data."""
    watched = watch("monolith")
    url = watched.running.status()["control_url"]

    def shell() -> str:
        with urllib.request.urlopen(url + "/", timeout=10) as answer:
            return answer.read().decode()

    assert "<!doctype html>" in until(shell).lower()
    assert not Path(watched.running.data / "run" / "portal.sock").stat().st_mode & 0o077
