"""Children of a run: pinned to a core, accounted for, always stopped."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

ROOT = Path(__file__).parent.parent
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class ChildFailed(RuntimeError):
    """A child ended, or did not answer in time; the message carries the end of what it wrote."""


def server_core() -> set[int]:
    return {min(os.sched_getaffinity(0))}


def client_core() -> set[int]:
    """The last core: another one than the server's wherever there are two."""
    return {max(os.sched_getaffinity(0))}


def all_cores() -> set[int]:
    return os.sched_getaffinity(0)


class Child:
    """A process that speaks JSON lines on standard output and, if it is a driver, takes them on standard input.

    It dies with the run: by ``stop``, and by the kernel should the run itself be killed.
    """

    def __init__(self, command: Sequence[str], *, cores: set[int], name: str, folder: Path | None = None) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop
        self._buffer = b""

        def prepare() -> None:
            os.sched_setaffinity(0, cores)
            if _libc is not None:
                _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=folder or ROOT,
            preexec_fn=prepare,  # noqa: PLW1509 - the harness has one thread
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def answer(self, timeout_s: float) -> dict[str, Any]:
        """The next JSON line of the child; other lines go by."""
        until = time.monotonic() + timeout_s
        while True:
            line = self._line(until)
            if line.startswith(b"{"):
                answer: dict[str, Any] = json.loads(line)
                if "error" in answer:
                    raise ChildFailed(f"{self.name}: {answer['error']}\n{self.log()}")
                return answer

    def ask(self, command: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        return self.answer(timeout_s)

    def cpu_s(self) -> float:
        """User and system time of the child and all below it that live."""
        return cpu_s(self.pid)

    def memory_mb(self) -> float:
        """Memory of the child and all below it; pages that they share are counted once (PSS)."""
        return sum(_memory_mb(process) for process in _tree(self.pid))

    def log(self, length_max: int = 4000) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-length_max:]

    def stop(self, timeout_s: float = 5) -> None:
        """Ask, then insist: SIGTERM, and SIGKILL to whatever of the tree is left."""
        tree = _tree(self.pid)
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout_s)
        _gone, alive = psutil.wait_procs([process for process in tree if process.pid != self.pid], timeout=1)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=1)
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()

    def _line(self, until: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise ChildFailed(f"{self.name} did not answer in time\n{self.log()}")
            part = os.read(descriptor, 65536)
            if not part:
                raise ChildFailed(f"{self.name} ended with status {self._process.wait(5)}\n{self.log()}")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on; held together while they are chosen, so that all differ."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def wait_for_port(port: int, child: Child, timeout_s: float = 15) -> None:
    """Until something listens on ``port``; for servers that do not say that they are ready."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if child.ended:
            break
        time.sleep(0.02)
    raise ChildFailed(f"{child.name} does not listen on {port}\n{child.log()}")


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def cpu_s(pid: int) -> float:
    total = 0.0
    for process in _tree(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _memory_mb(process: psutil.Process) -> float:
    try:
        memory = process.memory_full_info()
    except psutil.Error:
        return 0.0
    return float(getattr(memory, "pss", 0) or memory.rss) / 2**20
