"""The observer process as the supervisor sees it: started, kept alive, told what happens to workloads.

Nothing waits for it. While it is away telemetry is not kept, and the application runs as before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from seamline.kernel.children import ended_how
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.signal import log
from seamline.observe.records import Attribute, Batch, Log, Mark, Point, Source
from seamline.run.logbook import LogBook
from seamline.run.process import Process, start
from seamline.run.replica import Replica
from seamline.run.sockets import listen_unix
from seamline.run.telling import TELLING_SOCKET, Teller

PORTAL_SOCKET: Final = Path("run", "portal.sock")
_MODULE: Final = "seamline.portal.process"
"""A room above this one, which its process loads by name."""
_BACKOFF_S: Final = 0.5
_BACKOFF_MAX_S: Final = 30.0
_STEADY_S: Final = 60.0
_STOP_S: Final = 3.0
_LINES_MAX: Final = 5000
_POINTS_EVERY_S: Final = 1.0
SEVERITY: Final = {"debug": 5, "info": 9, "warning": 13, "error": 17, "critical": 21}
_LINE_OWN: Final = frozenset(
    {"time", "level", "module", "workload", "replica", "logger", "message", "trace_id", "span_id", "exception"}
)
MarkKind = Literal["release", "switch", "scale", "restart", "crash", "settings", "policy", "secret", "drill", "other"]
_log = log.get("seamline.run")


class ObserverOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the observer is told on its command line."""

    folder: str
    data: str
    supervisor_pid: int
    intake: int
    """The descriptor of the socket that processes tell on."""
    portal: int
    """The descriptor of the socket that the portal answers on."""
    log_level: str
    address: str = ""
    """Of the portal, for people."""


class Observing:
    """Keeps one observer.

    Args:
        folder: the application's.
        data: the data directory.
        book: whose lines are told, too.
        replicas: everyone with a process.
        topology: the one in force.
        address: the portal's, for people; empty where there is none.
        environment: of the process.
    """

    def __init__(
        self,
        folder: Path,
        data: Path,
        book: LogBook,
        replicas: Callable[[], Iterable[Replica]],
        topology: Callable[[], str],
        address: Callable[[], str],
        environment: Mapping[str, str],
        log_level: str,
    ) -> None:
        self._folder = folder
        self._data = data
        self._book = book
        self._replicas = replicas
        self._topology = topology
        self._address = address
        self._environment = environment
        self._log_level = log_level
        self._process: Process | None = None
        self._owner = TaskOwner("observer")
        self._stack = ExitStack()
        self._lines: deque[Log] = deque(maxlen=_LINES_MAX)
        self._marks: deque[Mark] = deque(maxlen=1000)
        self._dropped_lines = 0
        self._seen: dict[str, tuple[int, dict[str, str]]] = {}
        self._pointed = 0.0
        self._stopping = False
        self._teller = Teller(data / TELLING_SOCKET, self._collect)
        self.restarts = 0
        book.pass_on = self._keep

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None and self._process.status is None else 0

    def start(self) -> None:
        """Open the sockets, which outlive any one process, and keep a process behind them."""
        intake = self._stack.enter_context(listen_unix(self._data / TELLING_SOCKET))
        portal = self._stack.enter_context(listen_unix(self._data / PORTAL_SOCKET))
        for path in (TELLING_SOCKET, PORTAL_SOCKET):
            self._stack.callback((self._data / path).unlink, missing_ok=True)
        self._owner.spawn(self._keep_running(intake.fileno(), portal.fileno()), name="observer process")
        self._owner.spawn(self._teller.run(), name="telling of the supervisor")

    async def stop(self) -> None:
        """Tell the last, let it write that down, and end it."""
        self._stopping = True
        await self._teller.finish()
        process = self._process
        if process is not None and process.status is None:
            process.send(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    while process.status is None:  # noqa: ASYNC110  # its keeper hears of it first
                        await asyncio.sleep(0.02)
            process.kill()
        await self._owner.stop()
        self._book.pass_on = None
        self._stack.close()

    def mark(self, kind: MarkKind, title: str, modules: Sequence[str] = (), **attributes: Attribute) -> None:
        """Something was changed, now."""
        self._marks.append(Mark(time.time_ns(), kind, title, list(modules), attributes))

    # The process.

    async def _keep_running(self, intake: int, portal: int) -> None:
        backoff_s = _BACKOFF_S
        while True:
            began = time.monotonic()
            process = self._process = self._spawn(intake, portal)
            try:
                status = await process.wait(lambda line: self._book.write(line, "observer", 0))
            finally:
                process.end()
            if self._stopping:
                return
            backoff_s = _BACKOFF_S if time.monotonic() - began > _STEADY_S else min(backoff_s * 2, _BACKOFF_MAX_S)
            _log.warning(
                "the observer ended (%s): telemetry is not kept until it is back, in %g s", ended_how(status), backoff_s
            )
            await asyncio.sleep(backoff_s)
            self.restarts += 1

    def _spawn(self, intake: int, portal: int) -> Process:
        options = ObserverOptions(
            folder=str(self._folder),
            data=str(self._data),
            supervisor_pid=os.getpid(),
            intake=intake,
            portal=portal,
            log_level=self._log_level,
            address=self._address(),
        )
        command = [sys.executable, "-P", "-m", _MODULE, msgspec.json.encode(options).decode()]
        return start(command, descriptors=[intake, portal], folder=self._folder, environment=self._environment)

    # What is told.

    def _keep(self, line: Mapping[str, Any]) -> None:
        self._dropped_lines += len(self._lines) == _LINES_MAX
        self._lines.append(as_log(line))

    def _collect(self) -> Iterable[Batch]:
        now = time.monotonic()
        points: list[Point] = []
        if now - self._pointed >= _POINTS_EVERY_S:
            self._pointed = now
            points = self._points()
        lines, marks = list(self._lines), list(self._marks)
        dropped, self._dropped_lines = self._dropped_lines, 0
        self._lines.clear()
        self._marks.clear()
        if lines or marks or points:
            yield Batch(
                Source("", pid=os.getpid(), topology=self._topology()),
                time.time_ns(),
                logs=lines,
                marks=marks,
                points=points,
                dropped={"logs": dropped} if dropped else {},
            )

    def _points(self) -> list[Point]:
        """What only the supervisor knows of a workload: whether it runs, how often it had to be started again."""
        found: list[Point] = []
        for each in self._replicas():
            attributes = {"workload": each.workload.name, "replica": str(each.index)}
            before, versions = self._seen.get(each.label, (0, {}))
            if each.restarts > before:
                found.append(Point("seamline.restarts", each.restarts - before, kind="counter", attributes=attributes))
                self.mark("crash", f"{each.label} ended and was started again", each.workload.modules)
            for module, version in each.versions.items():
                if versions.get(module, version) != version:
                    self.mark("release", f"{module} {version}", [module], before=versions[module], version=version)
            self._seen[each.label] = each.restarts, dict(each.versions)
            found.append(Point("seamline.workload.up", float(each.reachable), attributes=attributes))
        return found


def as_log(line: Mapping[str, Any]) -> Log:
    """A line of the book as telemetry knows it."""
    try:
        at_ns = int(datetime.fromisoformat(str(line["time"])).timestamp() * 1e9)
    except (KeyError, ValueError, OverflowError):
        at_ns = time.time_ns()
    return Log(
        at_ns,
        SEVERITY.get(str(line.get("level")), 9),
        str(line.get("module") or ""),
        str(line.get("message", "")),
        str(line.get("logger", "")),
        str(line.get("workload", "")),
        int(line.get("replica") or 0),
        _hex(line.get("trace_id")),
        _hex(line.get("span_id")),
        str(line.get("exception") or ""),
        {key: _attribute(value) for key, value in line.items() if key not in _LINE_OWN},
    )


def _hex(value: object) -> bytes:
    try:
        return bytes.fromhex(str(value)) if value else b""
    except ValueError:
        return b""


def _attribute(value: Any) -> Attribute:
    return value if isinstance(value, bool | int | float | str) and -(2**63) <= _number(value) < 2**63 else str(value)


def _number(value: Any) -> float:
    return value if isinstance(value, int) else 0
