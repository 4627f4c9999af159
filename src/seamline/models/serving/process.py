"""One process of a model, seen from its host."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final, cast

from seamline.kernel.children import ended_how
from seamline.models.errors import ModelLoadError
from seamline.models.serving.errors import WorkerLost
from seamline.models.serving.messages import (
    Answered,
    Ask,
    Begin,
    Credit,
    Failed,
    Frames,
    FromProcess,
    Item,
    Leave,
    Ready,
    Stream,
    StreamEnd,
    ToProcess,
    framed,
    from_process,
)

AHEAD_MAX: Final = 16
"""Items that a stream may be ahead of its reader."""
_WORKER: Final = "seamline.models.serving.worker"
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class ModelProcess(asyncio.Protocol):
    """A process from its start to its end.

    Args:
        name: of the model, for messages.
        grace_s: how long a stream that nobody reads any more may take to its next item.
    """

    def __init__(self, name: str, grace_s: float) -> None:
        self._name = name
        self._grace_s = grace_s
        self._frames = Frames()
        self._asked: dict[int, asyncio.Future[Answered]] = {}
        self._streams: dict[int, _Streaming] = {}
        self._ids = count(1)
        self._transport: asyncio.Transport | None = None
        self._popen: subprocess.Popen[bytes] | None = None
        self._why = ""
        self._blameless = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Raises ModelLoadError where it cannot be loaded."""
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """How."""
        self.under_way = 0
        """Calls, batches and streams."""
        self.served = 0
        self.rss_bytes = 0
        self.retiring = False

    @property
    def pid(self) -> int:
        return self._popen.pid if self._popen is not None else 0

    @property
    def useful(self) -> bool:
        """Whether it may be given something to do."""
        return self.ready.done() and not self.ended.done() and not self.retiring and not self._why

    async def start(self, begin: Begin) -> None:
        """Start it, and load the model there; see ``ready``."""
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            command = (sys.executable, "-m", _WORKER, str(theirs.fileno()), str(os.getpid()))
            # Not in another thread: the child is to die with the thread that made it.
            self._popen = subprocess.Popen(  # noqa: ASYNC220, S603  # our own interpreter and module
                command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), process_group=0
            )
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            self._popen.kill()
            self._end(self._popen.wait())
            raise
        self._send(begin)

    async def ask(self, method: str, calls: Sequence[bytes]) -> Answered:
        """Raises WorkerLost when it ends before it has answered."""
        number = next(self._ids)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(Ask(number, method, list(calls)))
            answered = await answer
        except asyncio.CancelledError:
            self.kill("nobody waited for its answer any more, and it did not come", blameless=True)
            raise
        finally:
            self._asked.pop(number, None)
        self.served += len(calls)
        return answered

    async def stream(self, method: str, call: bytes) -> AsyncGenerator[bytes, None]:
        """The items as they come. ``StreamFailed`` carries what the model raised. Raises WorkerLost."""
        number = next(self._ids)
        streaming = self._streams[number] = _Streaming()
        self._send(Stream(number, method, call, AHEAD_MAX))
        try:
            while True:
                await streaming.news.wait()
                streaming.news.clear()
                while streaming.items:
                    yield streaming.items.popleft()
                    self._send(Credit(number, 1))
                if streaming.end is not None and not streaming.items:
                    break
            if isinstance(streaming.end, WorkerLost):
                raise streaming.end
            if streaming.end.error:
                raise StreamFailed(streaming.end.error)
        finally:
            await self._left(number, streaming)

    async def _left(self, number: int, streaming: _Streaming) -> None:
        """Until the generator there is closed; it may be at work on its next item."""
        if streaming.end is None:
            self._send(Leave(number))
            streaming.leave()
            _, late = await asyncio.wait([streaming.over], timeout=self._grace_s)
            if late:
                self.kill("nobody read its stream any more, and it did not end", blameless=True)
        self._streams.pop(number, None)
        self.served += 1

    def kill(self, why: str, *, blameless: bool = False) -> None:
        """End it now. ``blameless`` are the others whose calls are under way there."""
        if self._why or self.ended.done():
            return
        self._why, self._blameless = why, blameless
        if self._popen is not None:
            self._popen.kill()

    def close(self) -> None:
        """It ends by itself, without finishing anything."""
        self._why = self._why or "it was no longer wanted"
        if self._transport is not None:
            self._transport.close()

    def look(self, rss_max_bytes: int) -> None:
        """Kill it where it has grown far beyond what it may, in the middle of a call."""
        if self._popen is None or self.ended.done():
            return
        try:
            pages = int(Path(f"/proc/{self._popen.pid}/statm").read_bytes().split()[1])
        except (OSError, IndexError):
            return
        self.rss_bytes = pages * _PAGE_BYTES
        if self.rss_bytes > rss_max_bytes:
            self.kill(f"it had grown to {self.rss_bytes // 1_048_576} MB")

    # The protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        for frame in self._frames.feed(data):
            self._take(from_process.decode(frame))

    def _take(self, message: FromProcess) -> None:
        match message:
            case Ready():
                self.rss_bytes = message.rss_bytes
                self.ready.set_result(None)
            case Failed():
                self._why = self._why or f"it could not be loaded: {message.why}"
                self.ready.set_exception(_not_loaded(self._name, message.why))
            case Answered():
                self.rss_bytes = message.rss_bytes
                answer = self._asked.get(message.id)
                if answer is not None and not answer.done():
                    answer.set_result(message)
            case Item():
                if streaming := self._streams.get(message.id):
                    streaming.take(message.item)
            case StreamEnd():
                self.rss_bytes = message.rss_bytes
                if streaming := self._streams.get(message.id):
                    streaming.finish(message)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the protocol's signature
        assert self._popen is not None
        self._popen.kill()  # whatever it still does, nobody hears of it
        if self._popen.returncode is not None:
            self._end(self._popen.returncode)
            return
        descriptor = os.pidfd_open(self._popen.pid)
        asyncio.get_running_loop().add_reader(descriptor, self._reap, descriptor)

    def _reap(self, descriptor: int) -> None:
        assert self._popen is not None
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self._end(self._popen.wait())

    def _end(self, status: int) -> None:
        why = self._why or f"it ended with {ended_how(status)}"
        lost = WorkerLost(f"the process of {self._name} was lost: {why}", "It is started again by itself.")
        lost.blameless = self._blameless
        self.ended.set_result(why)
        if not self.ready.done():
            self.ready.set_exception(_not_loaded(self._name, why))
            self.ready.exception()  # somebody may have ceased to wait for it
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(lost)
        for streaming in self._streams.values():
            streaming.finish(lost)

    def _send(self, message: ToProcess) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(framed(message))
        elif isinstance(message, Ask | Stream):
            raise WorkerLost(f"the process of {self._name} has gone", "It is started again by itself.")


class StreamFailed(Exception):
    """The model raised; ``args`` hold the error as it came."""


class _Streaming:
    """A stream on its way."""

    def __init__(self) -> None:
        self.items: deque[bytes] = deque()
        self.news = asyncio.Event()
        self.end: StreamEnd | WorkerLost | None = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = False

    def take(self, item: bytes) -> None:
        if not self._left:
            self.items.append(item)
            self.news.set()

    def leave(self) -> None:
        self._left = True
        self.items.clear()

    def finish(self, end: StreamEnd | WorkerLost) -> None:
        if self.end is None:
            self.end = end
            self.news.set()
            if not self.over.done():
                self.over.set_result(None)


def _not_loaded(name: str, why: str) -> ModelLoadError:
    return ModelLoadError(f"{name} could not be loaded: {why}", "Look at its `load`, and at the log before this.")


def name_of(cls: type[Any]) -> str:
    """As the process finds it."""
    return f"{cls.__module__}:{cls.__qualname__}"
