"""The harness: load that is bounded, turns that alternate, children that do not outlive the run."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import psutil
import pytest
from benchmarks.driver import closed_loop, paced_loop
from benchmarks.http_client import HttpPool, request
from benchmarks.processes import Child, ChildFailed, client_core, server_core
from benchmarks.session import QUICK, Session
from benchmarks.sides import LoadFailed, Side, alternate


async def test_a_closed_loop_keeps_its_bounds():
    """Never more in flight than asked, never more calls than allowed."""
    flying = most = 0

    async def call() -> None:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0)
        flying -= 1

    measure = await closed_loop(call, in_flight=4, seconds=5, calls_max=100)
    assert (measure.calls, measure.errors, most) == (100, 0, 4)


async def test_failed_calls_are_counted_apart_and_the_first_is_kept():
    async def call() -> None:
        raise ConnectionError("no")

    measure = await closed_loop(call, in_flight=2, seconds=5, calls_max=10)
    assert (measure.calls, measure.errors, measure.first_error) == (0, 10, "ConnectionError: no")


async def test_a_paced_loop_charges_a_stall_to_the_calls_that_were_due():
    """A latency counts from the time a call was due: a stall delays all that should have begun in it."""
    stalled = False
    loop = asyncio.get_running_loop()

    async def call() -> None:
        nonlocal stalled
        if not stalled:
            stalled = True
            until = loop.time() + 0.2
            while loop.time() < until:
                pass  # blocks the event loop, as a slow handler would

    measure = await paced_loop(call, rate=100, seconds=0.2)
    assert measure.calls == 20
    assert measure.p50_ms > 20


async def test_the_http_client_reads_an_answer_that_comes_in_pieces_and_reuses_the_connection():
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readuntil(b"\r\n\r\n"):
            for piece in (b"HTTP/1.1 200 OK\r\ncontent-le", b"ngth: 5\r\n\r\nhe", b"llo"):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)

    server = await asyncio.start_server(_quiet(serve), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with HttpPool("127.0.0.1", port, connections_max=1) as pool:
        bodies = [(await pool.send(request("GET", "/"))).body for _ in range(3)]
    server.close()
    assert (bodies, connections) == ([b"hello"] * 3, 1)


def _quiet(serve: Any) -> Any:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    return served


ECHO = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    command = json.loads(line)
    answer = {"calls": 10, "elapsed_s": 1, "client_cpu_s": 0.1, "p50_ms": 1, "p99_ms": 2}
    print(json.dumps(answer | {"errors": command.get("errors", 0)}), flush=True)
"""


def test_a_child_is_pinned_asked_and_stopped():
    with Child([sys.executable, "-c", ECHO], cores=server_core(), name="echo") as child:
        assert child.answer(10) == {"ready": True}
        assert set(psutil.Process(child.pid).cpu_affinity() or ()) == server_core()
        assert child.ask({"loop": "closed"}, 10)["calls"] == 10
        assert child.memory_mb() > 1
        pid = child.pid
    assert not psutil.pid_exists(pid)


def test_children_are_stopped_when_the_run_fails():
    def a_run_that_fails() -> None:
        with Session(QUICK) as session:
            for _ in range(2):
                child = Child([sys.executable, "-c", ECHO], cores=client_core(), name="echo")
                pids.append(session.start(child).pid)
            assert all(psutil.pid_exists(pid) for pid in pids)
            raise ZeroDivisionError

    pids: list[int] = []
    with pytest.raises(ZeroDivisionError):
        a_run_that_fails()
    assert len(pids) == 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_child_that_ignores_the_request_to_stop_is_killed_with_what_it_started():
    stubborn = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('{\"pid\": %d}' % child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    child = Child([sys.executable, "-c", stubborn], cores=server_core(), name="stubborn")
    grandchild = child.answer(10)["pid"]
    child.stop(timeout_s=0.2)
    assert not psutil.pid_exists(child.pid)
    assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE


def test_a_child_that_dies_says_why():
    dying = "import sys; sys.exit('the port is taken')"
    with (
        Child([sys.executable, "-c", dying], cores=server_core(), name="server") as child,
        pytest.raises(ChildFailed, match=r"server ended with status 1\s+the port is taken"),
    ):
        child.answer(10)


def test_sides_take_turns_and_failed_calls_are_no_figure():
    with Session(QUICK) as session:
        sides: list[Side] = []
        for name in "ab":
            child = session.start(Child([sys.executable, "-c", ECHO], cores=client_core(), name=name))
            child.answer(10)
            sides.append(Side(name, [child], child))
        measures = alternate(sides, {"loop": "closed", "seconds": 0.1}, rounds=3, warm_up_s=0.1)
        assert [len(taken) for taken in measures] == [3, 3]
        with pytest.raises(LoadFailed, match="1 of 11 calls failed"):
            sides[0].run({"loop": "closed", "seconds": 0.1, "errors": 1})
