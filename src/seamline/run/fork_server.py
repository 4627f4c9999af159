"""A process that has imported what every worker needs, of which workers are copies: they start sooner and share memory.

The server (:mod:`seamline.run.forked`) imports nothing of the application and runs no thread and no event loop, so that
its copies begin as a new process would. It forks twice and the one between ends, for which time this process adopts
orphans: the worker is a child of the supervisor as if the supervisor had started it. It waits until it is told to
begin, because it is attested by its process id, which must be known here by then.

A worker that cannot be had this way is started as a new process, which costs time and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import site
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from seamline.kernel.children import adopting
from seamline.kernel.signal import log
from seamline.run.control import WorkerOptions
from seamline.run.process import Forked

_log = log.get("seamline.run")
READY = b"ready"
PID = struct.Struct("<q")
_READY_S = 30.0
_FORK_S = 2.0
_FAILURES_MAX = 3
"""In a row, after which it is not tried again: not every kernel and container lets a process do what it takes."""


class ForkServer:
    """Starts workers as copies of one process.

    Args:
        folder: the application's, where workers run.
    """

    def __init__(self, folder: Path) -> None:
        self.wanted = False
        """Whether there are places enough to fill: for a single worker it would cost what it saves."""
        self._folder = folder
        self._popen: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._made_of: object = None
        self._starting = asyncio.Lock()
        self._failures = 0

    @property
    def pid(self) -> int:
        """Of the server's process; 0 while there is none."""
        return self._popen.pid if self._popen is not None else 0

    async def fork(self, options: WorkerOptions, environment: Mapping[str, str]) -> Forked | None:
        """A worker with the descriptors that ``options`` name; None when a new process must be started instead."""
        if not self.wanted or self._failures >= _FAILURES_MAX:
            return None
        try:
            async with self._starting:
                made_of = (_installed(), dict(environment))
                if self._socket is None or self._made_of != made_of:
                    self.close()
                    await self._start(environment)
                    self._made_of = made_of
            forked = self._fork(options)
        except OSError as error:
            self._failures += 1
            _log.warning("a worker is started as a new process, as the fork server failed: %r", error)
            self.close()
            return None
        self._failures = 0
        return forked

    def close(self) -> None:
        """End the server. Workers go on, and the next that is wanted starts it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()
            self._popen = None

    async def _start(self, environment: Mapping[str, str]) -> None:
        """Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ExitStack() as failing:
            failing.callback(ours.close)
            with theirs:
                self._popen = self._open(theirs.fileno(), environment)
            ours.setblocking(False)
            async with asyncio.timeout(_READY_S):
                if await asyncio.get_running_loop().sock_recv(ours, len(READY)) != READY:
                    raise ConnectionError("it ended while it started")
            ours.settimeout(_FORK_S)
            failing.pop_all()
            self._socket = ours

    def _open(self, connection: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  # the command is our own interpreter and module
            [sys.executable, "-P", "-m", "seamline.run.forked", str(connection), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            pass_fds=[connection],
            cwd=self._folder,
            env=environment,
            process_group=0,
        )

    def _fork(self, options: WorkerOptions) -> Forked:
        """In one go, as an answer belongs to what was asked just before. Raises OSError."""
        assert self._socket is not None
        with ExitStack() as failing:
            output, write_output = _pipe(failing)
            read_begin, begin = _pipe(failing)
            descriptors = [read_begin, write_output, *options.descriptors]
            with adopting():
                socket.send_fds(self._socket, [msgspec.json.encode(options)], descriptors)
                answer = self._socket.recv(PID.size)
            if len(answer) != PID.size:
                raise ConnectionError("it is gone")
            (pid,) = PID.unpack(answer)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # fails if the child is not ours
            failing.pop_all()
        os.close(write_output)
        os.close(read_begin)
        return Forked(pid, output, begin)


def _pipe(failing: ExitStack) -> tuple[int, int]:
    """Its ends, to be closed when something fails."""
    ends = os.pipe()
    for end in ends:
        failing.callback(os.close, end)
    return ends


def _installed() -> tuple[int, ...]:
    """Changes when a package is installed, upgraded or removed: the server may hold another version of it."""
    found: list[int] = []
    for place in site.getsitepackages():
        with suppress(OSError):
            found.append(Path(place).stat().st_mtime_ns)
    return tuple(found)
