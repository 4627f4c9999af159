"""One replica of a workload: a worker that is started, watched, restarted when it dies, drained and stopped."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from seamline.kernel.children import ended_how
from seamline.kernel.errors import SeamlineError
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings import RunSettings
from seamline.kernel.signal import log
from seamline.run.control import (
    Address,
    Announce,
    Beat,
    ControlChannel,
    Done,
    Drain,
    Failed,
    Message,
    Numbered,
    Ready,
    Route,
    Stop,
    ToSupervisor,
    WorkerOptions,
)
from seamline.run.errors import ControlError, StartFailedError
from seamline.run.fork_server import ForkServer
from seamline.run.logbook import LogBook
from seamline.run.placement import Workload
from seamline.run.process import Process, start
from seamline.run.sockets import listen_mesh

_log = log.get("seamline.run")
_numbers = count(1)
SIDECAR_HOST = "seamline.deploy.sidecar.hosting:host"
"""A room above this one, which a worker loads by name."""
_GRACE_S = 3.0
_LAST_WORDS_S = 1.0
"""Within which what a worker said before it ended is read; it takes a turn of the loop."""
"""How long a worker may take to exit once it was told to."""


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    RESTARTING = "restarting"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Site:
    """What all replicas of one supervisor share."""

    folder: Path
    data: Path
    control: Path
    supervisor_pid: int
    public: int
    ai: int
    settings: RunSettings
    log_level: str
    host_factory: str
    environment: Mapping[str, str]
    """Of the workers."""
    fork_server: ForkServer
    book: LogBook
    telling: str
    """The socket on which workers tell the observer of themselves; empty where there is none."""
    on_change: Callable[[], None]
    """Called when a replica became ready or ceased to be."""
    on_announce: Callable[[Replica, Sequence[str]], None]


@dataclass(frozen=True)
class CrashLoop:
    """Why a replica keeps dying."""

    crashes: int
    window_s: float
    ended: str
    log: list[str]
    retry_s: float


class Replica:
    """Holds the place of one worker; the process in it may be the second or the tenth."""

    def __init__(self, workload: Workload, index: int, generation: int, site: Site) -> None:
        self.workload = workload
        self.index = index
        self.generation = generation
        self.state = State.STARTING
        self.gateway = False
        self.routes: list[Route] = []
        self.versions: dict[str, str] = {}
        """Module to the version of its code that the process runs."""
        self.restarts = 0
        self.crash_loop: CrashLoop | None = None
        self.beat: Beat | None = None
        self.cpu_percent = 0.0
        self.ready_s = 0.0
        self.process: Process | None = None
        self.attached = False
        self.rules_pid = 0
        """The process that was told which faults to inject."""
        self.public_pid = 0
        """The process that was told to accept on the public socket."""
        self.first_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._site = site
        self._channel: ControlChannel[ToSupervisor] | None = None
        self._heard_all = asyncio.Event()
        """Nothing more comes over the control channel."""
        self._heard_all.set()
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._crashes: deque[float] = deque(maxlen=1000)
        self._failure: SeamlineError | None = None
        self._leaving = asyncio.Event()
        self._gone = asyncio.Event()
        self._port = 0
        self._spawned = self._beat_at = time.monotonic()

    def __repr__(self) -> str:
        return f"{self.label}/{self.generation}"

    @property
    def audit_name(self) -> str:
        """How the log of its audit is called; a second one at the same time has ``~1`` behind it."""
        return f"{self.workload.name}-{self.index}" if self.index else self.workload.name

    @property
    def label(self) -> str:
        """``orders``, or ``orders#1`` for the second."""
        return f"{self.workload.name}#{self.index}" if self.index else self.workload.name

    @property
    def pid(self) -> int:
        return self.process.pid if self.process and self.process.status is None else 0

    @property
    def leaving(self) -> bool:
        return self._leaving.is_set()

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self._port, workload=self.workload.name)

    # The life of the process in this place.

    async def run(self) -> None:
        """Keep a worker here until :meth:`stop`."""
        try:
            while not self.leaving:
                status = await self._life()
                if self.leaving:
                    break
                if not self.first_ready.done():
                    self.first_ready.set_exception(self._start_failure(status))
                    break
                delay_s = self._after_crash(status)
                self.state = State.RESTARTING
                try:
                    await asyncio.wait_for(self._leaving.wait(), delay_s)
                except TimeoutError:
                    self.restarts += 1
        except OSError as error:
            _log.exception("%s cannot be started", self.label)
            if not self.first_ready.done():
                self.first_ready.set_exception(StartFailedError(f"{self.label!r} cannot be started: {error}"))
        finally:
            self.state = State.STOPPED
            self._gone.set()
            if not self.first_ready.done():
                self.first_ready.cancel()

    async def _life(self) -> int:
        """One process from start to end; its exit status."""
        self._failure = None
        with listen_mesh() as mesh:
            self._port = int(mesh.getsockname()[1])
            self.process = process = await self._spawn(mesh.fileno())
        # The supervisor keeps no copy of the mesh socket: when the worker dies, callers are refused at once.
        if self.leaving:  # who asked it to stop meanwhile found no process to end
            process.kill()
        process.begin()
        try:
            async with TaskOwner(f"watch {self.label}") as owner:
                owner.spawn(self._watch(process), name=f"watch {self.label}")
                status = await process.wait(self._on_line)
                with suppress(TimeoutError):  # its last words, perhaps the reason of its failure, may still be unread
                    await asyncio.wait_for(self._heard_all.wait(), _LAST_WORDS_S)
                return status
        finally:
            process.end()
            self._detached()

    async def _spawn(self, mesh: int) -> Process:
        site = self._site
        options = WorkerOptions(
            folder=str(site.folder),
            data=str(site.data),
            control=str(site.control),
            supervisor_pid=site.supervisor_pid,
            workload=self.workload.name,
            replica=self.index,
            generation=self.generation,
            modules=list(self.workload.modules),
            mesh=mesh,
            public=site.public,
            ai=site.ai,
            log_level=site.log_level,
            telling=site.telling,
            host_factory=site.host_factory or (SIDECAR_HOST if self.workload.sidecar else ""),
            sidecar=self.workload.sidecar,
        )
        self.state = State.STARTING
        self.attached = False
        self._spawned = time.monotonic()
        forked = await site.fork_server.fork(options, site.environment)
        if forked is not None:
            return Process(forked)
        # -P: a file of the application must not take the place of a module of the standard library.
        command = [sys.executable, "-P", "-m", "seamline.run.worker", self.label, msgspec.json.encode(options).decode()]
        return start(command, descriptors=options.descriptors, folder=site.folder, environment=site.environment)

    def _on_line(self, line: bytes) -> None:
        self._site.book.write(line, self.workload.name, self.index)

    async def _watch(self, process: Process) -> None:
        """End a worker that does not become ready, or whose event loop stands still."""
        settings = self._site.settings
        while True:
            await asyncio.sleep(min(1.0, settings.heartbeat_s))
            now = time.monotonic()
            if self.state is State.STARTING and now - self._spawned > settings.ready_timeout_s:
                self._failure = StartFailedError(
                    f"{self.label!r} was not ready within {settings.ready_timeout_s:g} s",
                    "See its log for what it waits for, or raise ready_timeout_s under [run].",
                )
                process.kill()
            if self.state is State.READY and 0 < settings.hung_after_s < now - self._beat_at:
                _log.error("%s has not answered for %d s: ending it", self.label, now - self._beat_at)
                process.kill()

    def _start_failure(self, status: int) -> SeamlineError:
        if self._failure is not None:
            return self._failure
        lines = [str(line.get("message", "")) for line in self._site.book.last(self.workload.name, 5)]
        said = f" Its last words: {' | '.join(lines)}" if lines else ""
        return StartFailedError(f"{self.label!r} ended before it was ready ({ended_how(status)}).{said}")

    def _after_crash(self, status: int) -> float:
        """Tell of the crash; how long to wait before the next start, in seconds."""
        settings = self._site.settings
        now = time.monotonic()
        self._crashes.append(now)
        while self._crashes[0] < now - settings.crash_loop_window_s:
            self._crashes.popleft()
        crashes = len(self._crashes)
        delay_s = min(settings.backoff_longest_s, settings.backoff_first_s * 2.0 ** min(crashes - 1, 30))
        if crashes >= settings.crash_loop_crashes:
            delay_s = settings.backoff_longest_s
        delay_s *= random.uniform(0.5, 1.0)
        how = str(self._failure) if self._failure else ended_how(status)
        if crashes < settings.crash_loop_crashes:
            _log.warning("%s ended with %s; starting it again in %.1f s", self.label, how, delay_s)
            return delay_s
        lines = [str(line.get("message", "")) for line in self._site.book.last(self.workload.name, 8)]
        self.crash_loop = CrashLoop(crashes, settings.crash_loop_window_s, how, lines, round(delay_s, 1))
        _log.error(
            "%s crashes in a loop: %d times within %g s, last with %s; next try in %.0f s. Its last lines:\n%s",
            self.label,
            crashes,
            settings.crash_loop_window_s,
            how,
            delay_s,
            "\n".join(lines) or "(none)",
        )
        return delay_s

    # The control channel to that process.

    def attach(self, channel: ControlChannel[ToSupervisor]) -> None:
        self.attached = True
        self._channel = channel
        self._heard_all.clear()
        self._site.on_change()

    def hung_up(self, channel: ControlChannel[ToSupervisor]) -> None:
        """All that came over it was heard."""
        if self._channel is channel:
            self._heard_all.set()

    @property
    def reachable(self) -> bool:
        return self._channel is not None

    def hear(self, message: ToSupervisor) -> None:
        """What the worker said."""
        match message:
            case Done(number=number, result=result, error=error):
                waiting = self._pending.pop(number, None)
                if waiting and not waiting.done():
                    waiting.set_exception(ControlError(error)) if error else waiting.set_result(result)
            case Beat():
                self._on_beat(message)
            case Announce(topics=topics):
                self._site.on_announce(self, topics)
            case Ready(gateway=gateway, routes=routes, versions=versions):
                self.gateway, self.routes, self.versions = gateway, routes, versions
                self._on_ready()
            case Failed(error=error):
                self._failure = _ReportedError(error)
            case _:
                raise ControlError(f"{self.label!r} sent a {type(message).__name__} out of turn")

    def _on_ready(self) -> None:
        self.state = State.READY
        self._beat_at = time.monotonic()
        self.ready_s = round(self._beat_at - self._spawned, 3)
        if not self.first_ready.done():
            self.first_ready.set_result(None)
        self._site.on_change()

    def _on_beat(self, beat: Beat) -> None:
        now = time.monotonic()
        if self.beat is not None and now > self._beat_at:
            self.cpu_percent = round(max(0.0, 100 * (beat.cpu_s - self.beat.cpu_s) / (now - self._beat_at)), 1)
        self.beat, self._beat_at = beat, now
        if self.crash_loop and now - self._crashes[-1] > self._site.settings.crash_loop_window_s:
            _log.info("%s has recovered", self.label)
            self.crash_loop = None

    def _detached(self) -> None:
        was_ready = self.state is State.READY
        if not self.leaving:
            self.state = State.RESTARTING
        self._heard_all.set()
        self._channel, self.beat, self.cpu_percent = None, None, 0.0
        pending, self._pending = self._pending, {}
        for waiting in pending.values():
            if not waiting.done():
                waiting.set_exception(ControlError(f"{self.label!r} is gone"))
        if was_ready:
            self._site.on_change()

    async def ask(self, kind: type[Numbered], wait_s: float, **fields: Any) -> Any:
        """Send a numbered message and wait for the answer. Raises ControlError."""
        if self._channel is None:
            raise ControlError(f"{self.label!r} has no control channel")
        number = next(_numbers)
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[number] = waiting
        self._channel.send(kind(number=number, **fields))
        try:
            return await asyncio.wait_for(waiting, wait_s)
        except TimeoutError:
            raise ControlError(f"{self.label!r} did not answer {kind.__name__} within {wait_s:g} s") from None
        finally:
            self._pending.pop(number, None)

    def tell(self, message: Message) -> None:
        if self._channel is not None:
            self._channel.send(message)

    # The end.

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new work and finish what is in flight; whether all of it was finished."""
        if self.state not in {State.READY, State.DRAINING}:
            return True
        # A drain that was broken off, as by a stop in the middle of a switch, is asked for again.
        self._leaving.set()
        self.state = State.DRAINING
        try:
            return bool(await self.ask(Drain, timeout_s + _GRACE_S, timeout_s=timeout_s))
        except ControlError as error:
            _log.warning("%s", error)
            return False

    async def stop(self, grace_s: float = _GRACE_S) -> None:
        """End the process; returns when it is gone."""
        self._leaving.set()
        self.tell(Stop())
        try:
            await asyncio.wait_for(self._gone.wait(), grace_s if self._channel else 0.05)
        except TimeoutError:
            self.kill()
            await self._gone.wait()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()


class _ReportedError(StartFailedError):
    """An error that a worker reported, with its own code."""

    def __init__(self, error: dict[str, str | None]) -> None:
        super().__init__(error.get("fact") or "", error.get("remedy") or "", place=error.get("place"))
        self.code = error.get("code") or "SL5003"  # pyright: ignore[reportAttributeAccessIssue]
