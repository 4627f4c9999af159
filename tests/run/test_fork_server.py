"""Workers are copies of one process where there are several, and nobody depends on that process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec
import psutil
import pytest
from shop import up
from supervised import Running, Starter, alive, until, worker_options

from seamline.kernel.settings import RunSettings
from seamline.run import fork_server
from seamline.run.control import WorkerOptions
from seamline.run.errors import Exit
from seamline.run.fork_server import ForkServer
from seamline.run.logbook import LogBook
from seamline.run.placement import Workload
from seamline.run.process import Forked
from seamline.run.replica import Replica, Site, State
from seamline.run.sockets import listen_unix


def _server(running: Running) -> int:
    """The pid of the fork server; 0 if there is none."""
    children = psutil.Process(running.process.pid).children()
    return next((each.pid for each in children if each.name() == "seamline forks"), 0)


def _parent(pid: int) -> int:
    return psutil.Process(pid).ppid()


def test_several_workers_are_copies_and_one_is_not(shop: Starter):
    """Children of the supervisor, called by their names; the server goes where one process is left, and comes again."""
    running = up(shop, "services")
    assert _server(running)
    for label, pid in running.pids().items():
        assert _parent(pid) == running.process.pid
        assert psutil.Process(pid).name() == label
        assert os.getpgid(pid) == pid
    running.ask("switch", topology="monolith")
    assert not _server(running)
    (only,) = running.pids().values()
    assert psutil.Process(only).name() != "app"
    assert running.get("/mug")["added"] == ["/mug"]
    running.ask("switch", topology="duo")
    assert _server(running)
    assert running.get("/")["placed"] is not None


def test_who_wants_new_processes_gets_them(shop: Starter):
    shop.write(run="fork = false")
    running = up(shop, "services")
    assert not _server(running)
    assert {psutil.Process(pid).ppid() for pid in running.pids().values()} == {running.process.pid}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_server_may_die_or_hang(shop: Starter, how: signal.Signals):
    """Nobody who runs notices; a worker that dies then is started all the same, and a new server after it."""
    running = up(shop, "services")
    server, before = _server(running), running.pids()
    os.kill(server, how)
    os.kill(before["cart"], signal.SIGKILL)
    until(lambda: running.pids()["cart"] not in {0, before["cart"]} and running.get("/mug")["added"])
    assert {**running.pids(), "cart": 0} == {**before, "cart": 0}
    until(lambda: not alive(server), "the end of the server")
    between = running.pids()
    os.kill(between["cart"], signal.SIGKILL)
    until(lambda: running.pids()["cart"] not in {0, between["cart"]} and running.get("/mug")["added"])
    assert _server(running) not in {0, server}


def test_all_end_with_a_supervisor_that_is_killed(shop: Starter):
    running = up(shop, "services")
    all_of_them = [_server(running), *running.pids().values()]
    running.signal(signal.SIGKILL)
    running.wait()
    until(lambda: not any(alive(pid) for pid in all_of_them), "the end of all")


@pytest.fixture
def options(tmp_path: Path) -> WorkerOptions:
    """Of a worker that finds nobody at its control socket."""
    mesh, public = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    return worker_options(tmp_path, mesh.detach(), public.detach(), replica=1, host_factory="")


async def test_a_worker_begins_when_it_is_told_to(tmp_path: Path, options: WorkerOptions):
    """Not before, as its process id must be known to those who ask for it; and never, if nobody is left to say so."""
    server = ForkServer(tmp_path)
    assert await server.fork(options, {}) is None
    server.wanted = True
    try:
        first, second = [await server.fork(options, {}) for _ in range(2)]
        assert first is not None
        assert second is not None
        assert first.pid != second.pid
        assert _parent(first.pid) == os.getpid()
        assert psutil.Process(first.pid).name() != "orders#1"
        first.begin()
        with first.stdout as said:
            assert b"no control channel" in said.read()
        assert first.wait() == Exit.ORPHANED
        os.close(second._begin)  # pyright: ignore[reportPrivateUsage]  # as if this process had died
        second.stdout.close()
        assert second.wait() == Exit.ORPHANED
    finally:
        server.close()


async def test_the_server_is_started_anew_where_it_would_be_another(
    tmp_path: Path, options: WorkerOptions, monkeypatch: pytest.MonkeyPatch
):
    """After a package was installed, and for another environment; else it stays."""
    server = ForkServer(tmp_path)
    server.wanted = True
    seen: list[int] = []
    monkeypatch.setattr(fork_server, "_installed", lambda: (1,))
    try:
        for environment in ({"A": "1"}, {"A": "1"}, {"A": "2"}):
            forked = await server.fork(options, environment)
            assert forked is not None
            seen.append(server.pid)
            _give_up(forked)
        monkeypatch.setattr(fork_server, "_installed", lambda: (2,))
        forked = await server.fork(options, environment)
        assert forked is not None
        seen.append(server.pid)
        _give_up(forked)
    finally:
        server.close()
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3
    assert not any(alive(pid) for pid in seen)


async def test_what_cannot_be_forked_is_left_to_a_new_process(tmp_path: Path, options: WorkerOptions):
    """A descriptor that is not open, a folder that is gone: None, and no process of it is left."""
    server = ForkServer(tmp_path)
    server.wanted = True
    try:
        assert await server.fork(msgspec.structs.replace(options, mesh=9999), {}) is None
        gone = ForkServer(tmp_path / "gone")
        gone.wanted = True
        for _ in range(3):
            assert await gone.fork(options, {}) is None
        (tmp_path / "gone").mkdir()
        assert await gone.fork(options, {}) is None
        assert not gone.pid  # it is not tried for ever
    finally:
        server.close()
    assert not [each for each in psutil.Process().children() if "seamline.run.forked" in " ".join(each.cmdline())]


class _Slow(ForkServer):
    """Takes its time, then leaves it to a new process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def fork(self, options: WorkerOptions, environment: Mapping[str, str]) -> Forked | None:
        self.asked.set()
        await self.go_on.wait()
        return None


async def test_who_is_stopped_while_its_process_is_made_ends(tmp_path: Path):
    """There was no process to end when it was asked to: the one that comes is ended, though it waits for ever."""
    slow = _Slow(tmp_path)
    public = socket.create_server(("127.0.0.1", 0))
    site = Site(
        folder=tmp_path,
        data=tmp_path,
        control=tmp_path / "control.sock",
        supervisor_pid=os.getpid(),
        public=public.fileno(),
        ai=-1,
        settings=RunSettings(),
        log_level="info",
        host_factory="",
        environment=os.environ,  # noqa: TID251  # for the child
        fork_server=slow,
        book=LogBook(str),
        telling="",
        on_change=lambda: None,
        on_announce=lambda replica, topics: None,
    )
    replica = Replica(Workload("orders", ("orders",)), 0, 1, site)
    with public, listen_unix(site.control):
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(replica.run())
            await slow.asked.wait()
            stopping = group.create_task(replica.stop())
            await asyncio.sleep(0.1)
            assert not stopping.done()
            slow.go_on.set()
    assert replica.state is State.STOPPED
    assert replica.process is not None
    assert replica.process.status == -signal.SIGKILL


def _give_up(forked: Forked) -> None:
    forked.send_signal(signal.SIGKILL)
    forked.stdout.close()
    forked.begin()
    assert forked.wait() == -signal.SIGKILL
