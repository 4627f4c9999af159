"""The verbs that speak with a running application ask what is meant and show what was answered.

A supervisor of straw stands behind a real admin socket: it notes what it is asked and answers what it is told.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seamline.cli.app import run

TOML = """
[app]
name = "shop"
modules = ["shop.web", "shop.cart", "shop.orders"]

[topologies.duo]
front = ["web"]
back = "*"
"""


class Supervisor:
    """Answers each op with lines prepared for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[dict[str, Any]] = []
        self.answers: dict[str, list[dict[str, Any]]] = {}
        self._path = folder / ".seamline" / "run" / "admin.sock"
        self._path.parent.mkdir(parents=True)
        self._ready, self._ends = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def answer(self, op: str, result: dict[str, Any], *before: dict[str, Any]) -> None:
        self.answers[op] = [*before, {"done": True, "result": result}]

    def refuse(self, op: str, **error: str) -> None:
        self.answers[op] = [{"error": error}]

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        self._ends.set()
        self._thread.join(10)

    async def _serve(self) -> None:
        server = await asyncio.start_unix_server(self._talk, str(self._path))
        self._ready.set()
        await asyncio.to_thread(self._ends.wait)
        server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = json.loads(await reader.readline())
        self.asked.append(request)
        for line in self.answers[request["op"]]:
            writer.write(json.dumps(line).encode() + b"\n")
        await writer.drain()
        writer.close()


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    (tmp_path / "seamline.toml").write_text(TOML)
    straw = Supervisor(tmp_path)
    straw.start()
    yield straw
    straw.stop()


def seamline(supervisor: Supervisor, *arguments: str) -> int:
    return run([*arguments, "--app", str(supervisor.folder)])


def test_nothing_running_is_said_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a supervisor every such verb says so, with the status of running."""
    (tmp_path / "seamline.toml").write_text(TOML)
    for verb in (["status"], ["top", "--once"], ["down"], ["restart"], ["scale", "cart=2"], ["logs"]):
        assert run([*verb, "--app", str(tmp_path)]) == 7
        assert capsys.readouterr().err.startswith("SL5007: no application is running at")


def test_a_switch_shows_progress_and_the_new_picture(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    """Progress lines come as they are said; then the topology is drawn."""
    result = {"seconds": 1.25, "started": ["web", "back"], "stopped": ["all"], "kept": [], "drained": True}
    supervisor.answer("switch", result, {"progress": "starting 2 workloads"}, {"progress": "draining all"})
    assert seamline(supervisor, "topology", "switch", "duo") == 0
    out = capsys.readouterr().out
    assert out.startswith("starting 2 workloads\ndraining all\n")
    assert "│ cart       │" in out
    assert out.endswith("In 1.2 s: started web, back; drained and ended all.\n")
    assert supervisor.asked == [{"op": "switch", "topology": "duo"}]


def test_a_switch_to_an_unknown_topology_asks_nobody(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that seamline.toml does not have is refused at once, with the nearest."""
    assert seamline(supervisor, "topology", "switch", "service") == 2
    assert "SL9002: there is no topology 'service'. Did you mean 'services'?" in capsys.readouterr().err
    assert supervisor.asked == []


def test_a_failed_switch_keeps_code_fact_and_remedy(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    """What the supervisor refused arrives as its own error, and so does the exit status."""
    supervisor.refuse("switch", code="SL5004", fact="'cart' was not ready", remedy="See its log.")
    assert seamline(supervisor, "topology", "switch", "duo") == 7
    assert capsys.readouterr().err == "SL5004: 'cart' was not ready. See its log.\n"
    assert seamline(supervisor, "topology", "switch", "duo", "--json") == 7
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "SL5004"


def test_scale_sends_numbers_and_knows_the_modules(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    """`cart=3` becomes a number for a module that exists; anything else is refused before it is sent."""
    supervisor.answer("scale", {})
    assert seamline(supervisor, "scale", "cart=3", "orders=1") == 0
    assert supervisor.asked == [{"op": "scale", "replicas": {"cart": 3, "orders": 1}}]
    assert capsys.readouterr().out.startswith("cart has 3 replicas, orders has 1 replica.")
    for wrong in ("cart", "cart=many", "cart=0", "basket=2"):
        assert seamline(supervisor, "scale", wrong) == 2
        assert capsys.readouterr().err.startswith("SL9002")
    assert len(supervisor.asked) == 1


def test_inject_sends_rules_in_the_words_of_the_mesh(supervisor: Supervisor) -> None:
    """Each option becomes the key of [mesh] that means the same."""
    supervisor.answer("inject", {})
    arguments = ["Cart.add", "Orders", "--delay-ms", "200", "--error", "unavailable", "--percent", "50"]
    assert seamline(supervisor, "inject", *arguments) == 0
    rule = {
        "inject_delay_ms": 200.0,
        "inject_delay_percent": 50.0,
        "inject_error": "unavailable",
        "inject_error_percent": 50.0,
    }
    assert supervisor.asked == [{"op": "inject", "rules": {"Cart.add": rule, "Orders": rule}}]
    assert seamline(supervisor, "inject", "--clear") == 0
    assert supervisor.asked[-1] == {"op": "inject", "rules": {}}


@pytest.mark.parametrize(
    "arguments",
    [[], ["Cart.add"], ["--delay-ms", "5"], ["Cart.add", "--clear"], ["a b", "--drop"], ["Cart.", "--drop"]],
)
def test_an_injection_that_would_do_nothing_is_refused(supervisor: Supervisor, arguments: list[str]) -> None:
    """Nothing named, nothing said, or not a name: status of wrong usage, and nothing is sent."""
    assert seamline(supervisor, "inject", *arguments) == 2
    assert supervisor.asked == []


def test_injected_rules_are_rules_of_the_mesh() -> None:
    """Whatever `inject` sends, the settings of the mesh know by that name and type."""
    from dataclasses import replace

    from seamline.cli.inject import Kind, rules_of
    from seamline.kernel.settings import MeshRules

    rules = rules_of(["Cart.add"], 5.0, Kind.crash, 10.0, drop=True, clear=False)
    changed = replace(MeshRules(), **rules["Cart.add"])
    assert (changed.inject_delay_ms, changed.inject_error, changed.inject_drop_percent) == (5.0, "crash", 10.0)


def test_logs_are_printed_line_by_line(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    """For people with time, module and message; with --json as they came."""
    line = {"time": "2026-11-22T10:11:12.123+00:00", "module": "cart", "level": "info", "message": "added"}
    supervisor.answer("logs", {}, {"log": line})
    assert seamline(supervisor, "logs", "--module", "cart") == 0
    assert capsys.readouterr().out.split() == ["10:11:12.123", "cart", "added"]
    assert seamline(supervisor, "logs", "--json") == 0
    assert json.loads(capsys.readouterr().out) == line


def replica(number: int, **said: Any) -> dict[str, Any]:
    usual = {
        "replica": number,
        "generation": 2,
        "pid": 0,
        "state": "ready",
        "gateway": False,
        "mesh": "127.0.0.1:4001",
        "restarts": 0,
        "ready_s": 0.4,
        "cpu_percent": 12.4,
        "rss_mb": 63.2,
        "loop_lag_ms": 0.4,
        "crash_loop": None,
    }
    return usual | said


WORKLOADS = [
    {"name": "web", "modules": ["web"], "replicas": [replica(0, gateway=True)]},
    {"name": "back", "modules": ["cart", "orders"], "replicas": [replica(0), replica(1, rss_mb=0.0)]},
]
STATUS = {
    "app": "shop",
    "topology": "duo",
    "changing": False,
    "ready": True,
    "started_at": 0.0,
    "url": "http://127.0.0.1:8080",
    "pid": 4000,
    "workloads": WORKLOADS,
}


def test_status_has_a_row_for_each_process(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the public comes in, which modules share a process, and the second of two alike."""
    supervisor.answer("status", STATUS)
    assert seamline(supervisor, "status") == 0
    head, _, title, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("shop runs as duo, up ")
    assert title.split() == ["workload", "state", "pid", "up", "restarts", "CPU", "memory", "modules", "mesh"]
    assert [row.split()[0] for row in rows] == ["web", "back", "back#1"]
    assert "◂ public" in rows[0]
    assert rows[0].split().count("web") == 2, "the workload and its only module"
    assert "cart, orders" in rows[1]
    assert "63 MB" in rows[1]
    assert "63 MB" not in rows[2]


def test_a_crash_loop_is_told_with_its_last_words(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    """What keeps dying is named with its last lines, as they were printed, and the exit status is 1."""
    loop = {"crashes": 6, "window_s": 60.0, "ended": "status 1", "log": ["KeyError: [bold]"], "retry_s": 28.5}
    dying = replica(0, state="restarting", restarts=6, crash_loop=loop)
    supervisor.answer("status", {**STATUS, "workloads": [{"name": "web", "modules": ["web"], "replicas": [dying]}]})
    assert seamline(supervisor, "status") == 1
    out = capsys.readouterr().out
    assert "web crashes in a loop: 6 times within 60 s, last with status 1; next try in 28.5 s." in out
    assert "  KeyError: [bold]\n" in out
    assert seamline(supervisor, "status", "--json") == 1
    assert json.loads(capsys.readouterr().out)["workloads"][0]["replicas"][0]["crash_loop"] == loop


def test_top_shows_what_is_busy_and_what_it_costs(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    """Edges without a call are left out; errors and latencies stand beside the rest."""
    busy = {"caller": "web", "callee": "cart", "method": "Cart.add", "calls_per_s": 1234.5, "errors_per_s": 0.5}
    busy |= {"inflight": 2, "p50_ms": 0.012, "p99_ms": 14.2}
    idle = busy | {"method": "Cart.empty", "calls_per_s": 0.0, "inflight": 0}
    look = {"topology": "duo", "edges": [busy, idle], "workloads": WORKLOADS}
    supervisor.answer("top", look, {"top": look}, {"top": look})
    assert seamline(supervisor, "top", "--once") == 0
    out = capsys.readouterr().out
    assert "1,234.5        0.5   12 µs   14.2 ms" in out
    assert "Cart.empty" not in out
    assert "back#1" in out
    assert supervisor.asked == [{"op": "top", "interval_s": 1.0}]
    assert seamline(supervisor, "top", "--json", "--interval", "0.5") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [look, look]
    assert supervisor.asked[-1] == {"op": "top", "follow": True, "interval_s": 0.5}


def test_a_load_with_switches_counts_what_fails_during_each(
    supervisor: Supervisor, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--switches` goes back and forth from where the application stands, and reports each switch."""
    monkeypatch.delitem(__import__("sys").modules, "shop", raising=False)
    port: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port.append(server.sockets[0].getsockname()[1])
        ready.set()
        await asyncio.to_thread(ends.wait)
        server.close()

    ready, ends = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(10)
    supervisor.answer("status", {"topology": "duo", "url": f"http://127.0.0.1:{port[0]}"})
    supervisor.answer("switch", {})
    try:
        arguments = ["load", "--switches", "3", "--between", "monolith,duo", "--pause", "0.05", "--users", "2"]
        assert seamline(supervisor, *arguments, "--json") == 0
        result = json.loads(capsys.readouterr().out)
        assert [each["to"] for each in result["switches"]] == ["monolith", "duo", "monolith"]
        assert [asked["topology"] for asked in supervisor.asked if asked["op"] == "switch"] == [
            "monolith",
            "duo",
            "monolith",
        ]
        assert result["failed"] == 0
        assert result["requests"] > 10
        assert seamline(supervisor, *arguments) == 0
        out = capsys.readouterr().out
        assert "Switches under load" in out
        assert "3 of 3 topology switches meanwhile: 0 failed" in out
        supervisor.refuse("switch", code="SL5005", fact="a switch is under way", remedy="Wait.")
        assert seamline(supervisor, *arguments) == 7
        captured = capsys.readouterr()
        assert captured.err == "SL5005: a switch is under way. Wait.\n"
        assert "0 of 3 topology switches meanwhile: 0 failed" in captured.out
        assert seamline(supervisor, *arguments, "--json") == 7
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "SL5005"
    finally:
        ends.set()
        thread.join(10)
