"""One child process: its start, its output line by line, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol, cast

_LINE_BYTES_MAX = 64 * 1024


class Child(Protocol):
    """What of :class:`subprocess.Popen` is needed here."""

    @property
    def pid(self) -> int: ...
    @property
    def stdout(self) -> IO[bytes] | None: ...
    def wait(self) -> int: ...
    def send_signal(self, sig: int) -> None: ...


class Forked:
    """A child that another process has forked for us (``run/fork_server.py``); nobody reaps it but :meth:`wait`.

    Args:
        stdout: the end of the pipe that it writes to.
        begin: the end of the pipe on which it waits for the word to begin.
    """

    def __init__(self, pid: int, stdout: int, begin: int) -> None:
        self.pid = pid
        self.stdout = os.fdopen(stdout, "rb", buffering=0)
        self._begin = begin

    def begin(self) -> None:
        """Let it do its work. One that has died meanwhile has its end told as any other."""
        with suppress(BrokenPipeError):
            os.write(self._begin, b".")
        os.close(self._begin)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def send_signal(self, sig: int) -> None:
        os.kill(self.pid, sig)


def start(
    command: Sequence[str],
    *,
    descriptors: Sequence[int],
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Run a command with our descriptors. Raises OSError."""
    return Process(
        subprocess.Popen(  # noqa: S603  # the command is our own interpreter and module
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(descriptors),
            cwd=folder,
            env=environment,
            process_group=0,
        )
    )


class Process:
    """A child in a process group of its own, so that the terminal's Ctrl-C reaches the supervisor alone."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self.pid = child.pid
        self.status: int | None = None
        """The exit status once it has ended; below zero the signal that ended it."""

    def begin(self) -> None:
        """Let a child that waits for the word do its work."""
        if isinstance(self._child, Forked):
            self._child.begin()

    async def wait(self, on_line: Callable[[bytes], None]) -> int:
        """Hand on its output until it has ended; the exit status."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        descriptor = os.pidfd_open(self.pid)
        loop.add_reader(descriptor, _resolve, ended)
        output = _Lines(on_line)
        transport, _ = await loop.connect_read_pipe(lambda: output, cast("IO[bytes]", self._child.stdout))
        try:
            await ended
            # A grandchild may hold the pipe open: what is there is read, the rest is not waited for.
            await asyncio.wait([output.closed], timeout=0.5)
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            transport.close()
            if ended.done():
                self.status = self._child.wait()
        return cast("int", self.status)

    def send(self, number: signal.Signals) -> None:
        """Signal it, unless it has ended."""
        if self.status is None:
            self._child.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def end(self) -> None:
        """Kill and reap it, if it still runs."""
        if self.status is None:
            self.kill()
            self.status = self._child.wait()
        if self._child.stdout:
            self._child.stdout.close()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Lines(asyncio.Protocol):
    """Cuts a pipe into lines of bounded length."""

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._rest = b""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > _LINE_BYTES_MAX:
            lines.append(rest[:_LINE_BYTES_MAX])
            rest = rest[_LINE_BYTES_MAX:]
        self._rest = rest
        for line in lines:
            if line.strip():
                self._on_line(line)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the protocol's signature
        if self._rest.strip():
            self._on_line(self._rest)
        if not self.closed.done():
            self.closed.set_result(None)
