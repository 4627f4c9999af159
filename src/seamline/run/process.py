"""One child process: its start, its output line by line, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, cast

_LINE_BYTES_MAX = 64 * 1024


class Process:
    """A child in a process group of its own, so that the terminal's Ctrl-C reaches the supervisor alone."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        descriptors: Sequence[int],
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._popen = subprocess.Popen(  # noqa: S603  # the command is our own interpreter and module
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(descriptors),
            cwd=folder,
            env=environment,
            process_group=0,
        )
        self.pid = self._popen.pid
        self.status: int | None = None
        """The exit status once it has ended; below zero the signal that ended it."""

    async def wait(self, on_line: Callable[[bytes], None]) -> int:
        """Hand on its output until it has ended; the exit status."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        descriptor = os.pidfd_open(self.pid)
        loop.add_reader(descriptor, _resolve, ended)
        output = _Lines(on_line)
        transport, _ = await loop.connect_read_pipe(lambda: output, cast("IO[bytes]", self._popen.stdout))
        try:
            await ended
            # A grandchild may hold the pipe open: what is there is read, the rest is not waited for.
            await asyncio.wait([output.closed], timeout=0.5)
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            transport.close()
            if ended.done():
                self.status = self._popen.wait()
        return cast("int", self.status)

    def send(self, number: signal.Signals) -> None:
        """Signal it, unless it has ended."""
        if self.status is None:
            self._popen.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def end(self) -> None:
        """Kill and reap it, if it still runs."""
        if self.status is None:
            self.kill()
            self.status = self._popen.wait()
        if self._popen.stdout:
            self._popen.stdout.close()


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
