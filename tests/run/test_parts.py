"""Placement, the merged log, child processes, traffic and the worker by itself."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from supervised import alive, until, worker_options

from seamline.kernel.children import ended_how
from seamline.kernel.clock import SystemClock
from seamline.kernel.errors import SeamlineError
from seamline.kernel.settings import Settings
from seamline.mesh.identity import CertificateAuthority, new_key_and_csr
from seamline.run.control import (
    MESSAGE_BYTES_MAX,
    ControlChannel,
    Done,
    Failed,
    Hello,
    Ready,
    Refused,
    Sign,
    Signed,
    Stop,
    ToSupervisor,
    ToWorker,
    Wake,
    Welcome,
    supervisor_decoder,
    worker_decoder,
)
from seamline.run.errors import AttestationError, ControlError, Exit
from seamline.run.logbook import LogBook
from seamline.run.placement import Workload, groups, place
from seamline.run.printer import Printer
from seamline.run.process import start
from seamline.run.registrar import Registrar
from seamline.run.reload import changed_modules
from seamline.run.sockets import Peer, listen_unix, peer_of
from seamline.run.traffic import Snapshot, compare

TOML = """\
[app]
name = "shop"
modules = ["shop.front", "shop.cart", "shop.orders"]
[topologies.duo]
edge = ["front"]
back = "*"
[replicas]
orders = 2
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "seamline.toml").write_text(TOML)
    return Settings.load(tmp_path, {})


def test_a_workload_is_called_by_its_module_or_its_group(settings: Settings):
    assert groups(settings, "monolith") == {"all": ("front", "cart", "orders")}
    assert groups(settings, "duo") == {"front": ("front",), "back": ("cart", "orders")}
    with pytest.raises(SeamlineError, match="Known: duo, monolith, services"):
        groups(settings, "trio")


def test_replicas_are_for_modules_that_are_alone_unless_asked_for_by_workload(settings: Settings):
    """``[replicas]`` speaks of a module by itself; the command line of any workload."""
    assert place(settings, "duo") == (Workload("front", ("front",)), Workload("back", ("cart", "orders")))
    assert place(settings, "services")[2] == Workload("orders", ("orders",), 2)
    assert place(settings, "services", replicas={"orders": 5})[2].replicas == 5
    assert place(settings, "duo", replicas={"back": 3})[1].replicas == 3


def test_modules_outside_are_not_placed(settings: Settings):
    """A group loses the module; a workload that would be empty is not there."""
    assert place(settings, "duo", outside={"front", "cart"}) == (Workload("back", ("orders",)),)


def test_a_change_inside_a_module_concerns_it_alone(settings: Settings):
    """A contract, or a file of no module, concerns all; the settings are read anew in any case."""
    shop = settings.folder / "shop"
    assert changed_modules(settings, {shop / "cart" / "module.py", shop / "cart" / "parts" / "x.py"}) == {"cart"}
    assert changed_modules(settings, {shop / "cart" / "__init__.py"}) == {"front", "cart", "orders"}
    assert changed_modules(settings, {shop / "money.py"}) == {"front", "cart", "orders"}
    assert changed_modules(settings, {settings.folder / "seamline.toml"}) == set()


def test_the_book_takes_what_code_prints_as_it_takes_json():
    """Each line with its workload; a terminal is not obeyed; what is not JSON is a message."""
    shown: list[str] = []
    book = LogBook(shown.append)
    line = {"time": "2026-11-22T10:11:12.123Z", "level": "error", "module": "cart", "message": "no \x1b[2Jmug", "n": 7}
    book.write(json.dumps(line).encode(), "back", 1)
    book.write(b"printed \xff", "back", 0)
    book.write(b'{"half": ', "front", 0)
    first, second, third = shown
    assert first == "10:11:12.123 cart           error: no \\x1b[2Jmug n=7"
    assert "printed \\xff" in second
    assert '{"half": ' in third
    assert [each["workload"] for each in book.last()] == ["back", "back", "front"]
    assert len(book.last("cart")) == 1
    assert book.last("front", 0) == []


def test_colours_are_for_terminals_and_json_passes_through():
    plain: list[str] = []
    coloured: list[str] = []
    passed: list[str] = []
    line = {"level": "warning", "module": "cart", "message": "low"}
    LogBook(plain.append).add(line)
    LogBook(coloured.append, colour=True).add(line)
    LogBook(passed.append, pretty=False).add(line)
    assert "\x1b[" not in plain[0]
    assert "\x1b[" in coloured[0]
    assert json.loads(passed[0]) == line


def test_a_printer_drops_what_nobody_reads_and_says_so():
    """A stream that stands still holds nobody up; once it is read again, the gap is told."""
    reads = threading.Event()

    class Slow(io.StringIO):
        def write(self, text: str, /) -> int:
            assert reads.wait(20)
            return super().write(text)

    stream = Slow()
    printer = Printer(stream, lines_max=3)
    for number in range(10):
        printer.print(f"line {number}")
    reads.set()
    until(lambda: "line 2" in stream.getvalue())
    printer.print("the last")
    printer.close()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "line 0"
    assert lines[-1] == "the last"
    assert lines[-2].endswith("lines were dropped: nobody read them)")


def test_a_reader_that_went_away_ends_nothing():
    """``seamline up | head`` must not end the application."""

    class Gone(io.StringIO):
        def write(self, text: str, /) -> int:
            raise BrokenPipeError

    printer = Printer(Gone())
    printer.print("one")
    printer.print("two")
    printer.close(20)
    assert printer.idle


async def test_a_slow_follower_misses_the_oldest_lines():
    """It never holds more than its queue."""
    book = LogBook(lambda _: None)
    with book.follow() as queue:
        for number in range(1500):
            book.add({"message": str(number)})
        assert queue.qsize() == 1000
        assert (await queue.get())["message"] == "500"


async def test_a_childs_lines_and_its_end_are_heard(tmp_path: Path):
    """The last line without an end, a line beyond the limit in pieces, the signal that ended it."""
    lines: list[bytes] = []
    code = "import os; print('one'); print('x' * 200000); print('last', end='', flush=True); os.kill(os.getpid(), 9)"
    child = start([sys.executable, "-c", code], descriptors=[], folder=tmp_path)
    status = await child.wait(lines.append)
    child.end()
    assert ended_how(status) == "signal SIGKILL"
    assert (lines[0], lines[-1]) == (b"one", b"last")
    assert len(lines) > 4
    assert sum(map(len, lines)) == len("one") + 200000 + len("last")
    assert ended_how(3) == "exit status 3"


async def test_a_grandchild_that_holds_the_pipe_does_not_hold_the_supervisor(tmp_path: Path):
    """The child's end counts, not the end of its output."""
    code = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True)"
    lines: list[bytes] = []
    child = start([sys.executable, "-c", code], descriptors=[], folder=tmp_path)
    async with asyncio.timeout(20):
        assert await child.wait(lines.append) == 0
    child.end()
    os.kill(int(lines[0]), 9)


async def test_a_cancelled_wait_leaves_a_child_that_can_be_ended(tmp_path: Path):
    child = start(["sleep", "60"], descriptors=[], folder=tmp_path)
    waiting = asyncio.get_running_loop().create_task(child.wait(lambda _: None))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    child.end()
    assert not alive(child.pid)


def test_traffic_between_two_looks_counts_new_processes_from_zero():
    """Rates and latencies are of the time between, over all replicas."""

    def edge(calls: int, errors: int, buckets: dict[int, int]) -> dict[str, Any]:
        histogram = [buckets.get(bucket, 0) for bucket in range(140)]
        key = {"caller": "front", "callee": "cart", "method": "Carts.add"}
        return {**key, "calls": calls, "errors": errors, "inflight": 1, "histogram": histogram}

    before = Snapshot(10.0, {(1, "a"): {"edges": [edge(100, 10, {4: 100})]}})
    after = Snapshot(
        12.0, {(1, "a"): {"edges": [edge(110, 12, {4: 100, 40: 10})]}, (2, "b"): {"edges": [edge(4, 0, {40: 4})]}}
    )
    (found,) = compare(before, after)
    assert (found["calls_per_s"], found["errors_per_s"], found["inflight"]) == (7.0, 1.0, 2)
    assert found["p50_ms"] == found["p99_ms"] > 1


async def _channel(raw: bytes) -> ControlChannel[ToSupervisor]:
    reader = asyncio.StreamReader()
    reader.feed_data(raw)
    reader.feed_eof()
    left, right = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=left)
    right.close()
    return ControlChannel(reader, writer, supervisor_decoder())


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"type":"hello"}', b'{"type":"welcome"}', b'{"type":"done","number":"1"}', b"\xff" * 9],
)
async def test_what_is_no_message_is_refused(body: bytes):
    channel = await _channel(len(body).to_bytes(4, "big") + body)
    with pytest.raises(ControlError):
        await channel.receive()
    channel.close()
    await channel.closed()


async def test_messages_are_bounded_in_both_directions():
    channel = await _channel((MESSAGE_BYTES_MAX + 1).to_bytes(4, "big"))
    with pytest.raises(ControlError, match="above the limit"):
        await channel.receive()
    with pytest.raises(ControlError, match="above the limit"):
        channel.send(Done(number=1, result="x" * MESSAGE_BYTES_MAX))
    channel.close()
    await channel.closed()


async def test_a_cut_message_is_the_end():
    for raw in (b"", b"\x00\x00", b"\x00\x00\x00\x09{"):
        channel = await _channel(raw)
        assert await channel.receive() is None
        channel.close()
        await channel.closed()


def _worker(tmp_path: Path, **changes: Any) -> subprocess.Popen[bytes]:
    """A worker whose supervisor is this test."""
    mesh = socket.create_server(("127.0.0.1", 0))
    options = worker_options(tmp_path, mesh.fileno(), os.dup(mesh.fileno()), **changes)
    os.set_inheritable(options.public, True)
    command = [sys.executable, "-P", "-m", "seamline.run.worker", "orders", msgspec.json.encode(options).decode()]
    with mesh:
        worker = subprocess.Popen(
            command,
            pass_fds=(options.mesh, options.public),
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},  # noqa: TID251  # for the child
        )
    os.close(options.public)
    return worker


@pytest.mark.parametrize(("told", "status"), [(False, Exit.ORPHANED), (True, Exit.STOPPED)])
async def test_a_worker_ends_with_its_control_channel(tmp_path: Path, told: bool, status: Exit):
    """Where the kernel does not kill it, the end of the channel does; and a stop is a stop."""
    authority = CertificateAuthority.load_or_create(tmp_path / "identity", "shop.local", "shop")
    bundle = authority.bundle_pem.decode()
    with listen_unix(tmp_path / "control.sock") as listener, _worker(tmp_path) as worker:
        connection, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(listener), 20)
        assert peer_of(connection).pid == worker.pid
        reader, writer = await asyncio.open_unix_connection(sock=connection)
        channel = ControlChannel[ToSupervisor](reader, writer, supervisor_decoder())
        assert await channel.receive() == Hello(workload="orders", replica=0, generation=1)
        channel.send(Welcome(modules=["orders"], trust_domain="shop.local", app="shop", bundle=bundle, heartbeat_s=1))
        asked = await channel.receive()
        assert isinstance(asked, Sign)
        assert "PRIVATE" not in asked.requests["orders"]
        chain = authority.issue(asked.requests["orders"].encode(), "orders").decode()
        channel.send(Signed(chains={"orders": chain}, bundle=bundle))
        assert isinstance(await channel.receive(), Ready)
        if told:
            channel.send(Stop())
        else:
            channel.close()
        assert await asyncio.to_thread(worker.wait, 20) == status
        channel.close()
        await channel.closed()


async def test_last_words_are_heard_by_who_was_writing():
    """A worker that fails and ends while the supervisor still answers it: its error is read all the same."""
    ours, theirs = socket.socketpair()
    worker = ControlChannel[ToWorker](*await asyncio.open_connection(sock=theirs), worker_decoder())
    supervisor = ControlChannel[ToSupervisor](*await asyncio.open_connection(sock=ours), supervisor_decoder())
    last = Failed(error={"code": "SL4502"})
    worker.send(last)
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.hang_up(10))
        await asyncio.sleep(0.01)
        for _ in range(3):  # the second write to who has closed is what fails
            supervisor.send(Wake(topics=[]))
            await asyncio.sleep(0.01)
        assert await supervisor.receive() == last
        assert await supervisor.receive() is None
        supervisor.close()


async def test_who_says_the_last_word_waits_for_no_one_who_does_not_listen():
    ours, theirs = socket.socketpair()
    worker = ControlChannel[ToWorker](*await asyncio.open_connection(sock=theirs), worker_decoder())
    worker.send(Failed(error={}))
    await worker.hang_up(0.05)
    ours.close()


def _register(settings: Settings, **changes: Any) -> tuple[Registrar, Any]:
    """A registrar that has spawned this very process as the workload ``cart``."""
    workload = Workload("cart", ("cart",))
    known: dict[str, Any] = {"pid": os.getpid(), "workload": workload, "index": 0, "generation": 3, "attached": False}

    def tell(_: object) -> None: ...

    replica = SimpleNamespace(**{**known, **changes}, label="cart", tell=tell)
    return Registrar(settings, settings.data_folder, lambda: [cast("Any", replica)], SystemClock()), replica


@pytest.mark.parametrize(
    ("hello", "peer", "changes", "says"),
    [
        (Hello("cart", 0, 3), Peer(os.getpid(), os.getuid() + 1), {}, "belongs to user"),
        (Hello("cart", 0, 3), Peer(1, os.getuid()), {}, "was not started by this supervisor"),
        (Hello("orders", 0, 3), Peer(os.getpid(), os.getuid()), {}, "claims to be ('orders', 0, 3)"),
        (Hello("cart", 1, 3), Peer(os.getpid(), os.getuid()), {}, "claims to be ('cart', 1, 3)"),
        (Hello("cart", 0, 2), Peer(os.getpid(), os.getuid()), {}, "claims to be ('cart', 0, 2)"),
        (Sign({}), Peer(os.getpid(), os.getuid()), {}, "claims to be None"),
        (Hello("cart", 0, 3), Peer(os.getpid(), os.getuid()), {"attached": True}, "is connected already"),
    ],
)
def test_attestation_goes_by_the_kernels_word(
    settings: Settings, hello: Any, peer: Peer, changes: dict[str, Any], says: str
):
    """Another user, another process, another claim, a second connection: each is refused."""
    registrar, replica = _register(settings)
    assert registrar.attest(Hello("cart", 0, 3), Peer(os.getpid(), os.getuid())) is replica
    registrar, _ = _register(settings, **changes)
    with pytest.raises(AttestationError) as caught:
        registrar.attest(hello, peer)
    assert says in caught.value.fact


def test_a_worker_gets_the_identities_of_its_own_modules_only(settings: Settings):
    """One foreign module among its own, or no request at all, and it gets none; the audit knows."""
    registrar, replica = _register(settings)
    authority = CertificateAuthority.load_or_create(settings.data_folder / "identity", "shop.local", "shop")
    request, peer = new_key_and_csr()[1].decode(), Peer(os.getpid(), os.getuid())
    signed = registrar.sign(Sign({"cart": request}), replica, authority, peer)
    assert isinstance(signed, Signed)
    assert list(signed.chains) == ["cart"]
    for requests in ({"cart": request, "orders": request}, {"gateway": request}, {"cart": "not a request"}):
        assert isinstance(registrar.sign(Sign(requests), replica, authority, peer), Refused)
    audit = (settings.data_folder / "audit" / "supervisor.jsonl").read_text()
    assert "asked for the identity of 'orders'" in audit
    decisions = [json.loads(line)["decision"] for line in audit.splitlines()]
    assert decisions == ["allow", "refuse", "refuse", "refuse"]


def test_a_worker_whose_supervisor_is_gone_already_ends(tmp_path: Path):
    """It looks at its parent after it has asked the kernel, so that there is no gap."""
    with _worker(tmp_path, supervisor_pid=1) as worker:
        assert worker.wait(20) == Exit.ORPHANED
    until(lambda: not alive(worker.pid))
