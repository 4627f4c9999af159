"""The supervisor: opens the sockets, starts the workloads, and keeps the topology true until it is told to stop.

It imports nothing of the application, so that it starts fast and the application's mistakes cannot end it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from seamline.kernel.clock import SystemClock
from seamline.kernel.errors import SeamlineError
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings import Settings, SettingsError, SidecarSettings, workers_environment
from seamline.kernel.signal import log
from seamline.run.admin import ADMIN_SOCKET
from seamline.run.control import CONTROL_SOCKET, Address, ReloadPolicy
from seamline.run.errors import (
    AlreadyRunningError,
    BusyError,
    Exit,
    NotRunningError,
    PortTakenError,
    StartFailedError,
    UnknownTargetError,
)
from seamline.run.fleet import Change, Fleet, Say
from seamline.run.lock import DataLock
from seamline.run.logbook import BookHandler, LogBook
from seamline.run.models.rollouts import Rollouts
from seamline.run.observing import PORTAL_SOCKET, MarkKind, Observing
from seamline.run.operations import AdminServer
from seamline.run.placement import Workload, place
from seamline.run.printer import Printer
from seamline.run.registrar import Registrar
from seamline.run.replica import Replica, Site
from seamline.run.sockets import listen_public, listen_unix
from seamline.run.telling import TELLING_SOCKET

if TYPE_CHECKING:
    from seamline.run.api import ControlApi

_log = log.get("seamline.run")
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Supervisor:
    """Runs one application.

    Args:
        settings: the application's.
        topology: instead of the one in the settings.
        replicas: by workload or module, stronger than ``[replicas]``.
        external: modules that something else hosts, and where.
        reload: restart what changed when a source file changes.
        testing: answer operations that only tests may ask.
        host_factory: ``module:attribute`` of another host for the workers (tests).
        output: where the merged log goes.
        on_ready: called with the status once everything is ready.
        observe: keep telemetry and serve the portal; as the settings say, and not in tests, when None.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        topology: str | None = None,
        replicas: Mapping[str, int] | None = None,
        external: Mapping[str, tuple[str, int]] | None = None,
        reload: bool = False,
        testing: bool = False,
        host_factory: str = "",
        output: IO[str] | None = None,
        on_ready: Callable[[dict[str, Any]], None] | None = None,
        observe: bool | None = None,
    ) -> None:
        self.settings = settings
        self.topology = topology or settings.app.topology
        self.replicas = dict(replicas or {})
        self.sidecars: dict[str, SidecarSettings] = {}
        """By module, beside those of the settings."""
        self.testing = testing
        self.clock = SystemClock()
        stream: IO[str] = sys.stdout if output is None else output
        self._printer = Printer(stream)
        self.book = LogBook(self._printer.print, pretty=settings.telemetry.log == "pretty", colour=stream.isatty())
        self.fleet = Fleet(settings.folder, settings.run)
        self.fleet.outside = {name: Address(*where, workload="external") for name, where in (external or {}).items()}
        self.data = settings.data_folder
        self.registrar = Registrar(settings, self.data, lambda: self.fleet.replicas, self.clock)
        self.rollouts = Rollouts(self)
        self.book.hide = self.registrar.keeping.hide
        self.url = self.ai_url = ""
        self.started_at = 0.0
        self.stopped: asyncio.Future[bool] | None = None
        """Resolved with whether everything in flight was finished."""
        self.api: ControlApi | None = None
        wanted = not testing and bool(settings.observe.store or settings.telemetry.otlp)
        self.observing: Observing | None = self._observing() if (wanted if observe is None else observe) else None
        self._reload = reload
        self._host_factory = host_factory
        self._on_ready = on_ready
        self._public_fd = self._ai_fd = -1
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._change: asyncio.Task[Any] | None = None

    def _observing(self) -> Observing:
        return Observing(
            self.settings.folder,
            self.data,
            self.book,
            lambda: self.fleet.replicas,
            lambda: self.topology,
            lambda: self.api.url if self.api is not None else "",
            workers_environment(self.settings),
            self.settings.telemetry.log_level,
        )

    async def run(self) -> Exit:
        """Start, serve, and stop when asked to. Raises SettingsError, RunError, or what a workload reported."""
        self.fleet.topology = self.topology
        self.placed(self.topology)  # before anything is opened
        self.settings.prepare_data_folder()
        loop = asyncio.get_running_loop()
        self.stopped = loop.create_future()
        handler = BookHandler(self.book)
        logger = logging.getLogger("seamline")
        with ExitStack() as stack:
            stack.callback(self._printer.close)
            stack.enter_context(DataLock(self.data))
            logger.addHandler(handler)
            stack.callback(logger.removeHandler, handler)
            logger.setLevel(self.settings.telemetry.log_level.upper())
            public = stack.enter_context(listen_public(*self.settings.gateway.address))
            stack.callback(self.registrar.auditing.finish)
            control = stack.enter_context(listen_unix(self.data / CONTROL_SOCKET))
            admin = stack.enter_context(listen_unix(self.data / ADMIN_SOCKET))
            stack.callback((self.data / CONTROL_SOCKET).unlink, missing_ok=True)
            stack.callback((self.data / ADMIN_SOCKET).unlink, missing_ok=True)
            self._public_fd = public.fileno()
            self.url = self._url_of(public)
            if self.settings.ai_gateway.listen:
                ai = stack.enter_context(listen_public(*self.settings.ai_gateway.address))
                self._ai_fd, self.ai_url = ai.fileno(), f"http://{_shown(ai)}/v1"
            for number in _STOP_SIGNALS:
                if signal.getsignal(number) is signal.SIG_IGN and number is signal.SIGHUP:
                    continue  # nohup asked for it
                loop.add_signal_handler(number, self._on_signal)
                stack.callback(loop.remove_signal_handler, number)
            return await self._serve(control, admin)

    async def _serve(self, control: socket.socket, admin: socket.socket) -> Exit:
        async with TaskOwner("supervisor") as owner:
            owner.spawn(self.registrar.serve(control), name="control socket")
            owner.spawn(self.registrar.maintain(), name="authority")
            owner.spawn(self.registrar.federate(), name="federation")
            owner.spawn(self.registrar.keeping.maintain(), name="secrets")
            owner.spawn(self.registrar.auditing.run(), name="audit")
            owner.spawn(self.fleet.keep_published(), name="endpoints")
            owner.spawn(self.rollouts.run(), name="rollouts")
            # Asked for before anything is ready, `status` tells how far it is.
            server = AdminServer(self)
            owner.spawn(server.serve(admin), name="admin socket")
            if self.settings.admin.listen:
                self.api = self._control_api(server)
                owner.spawn(self.api.serve(self.api.listen()), name="control API")
            try:
                if not await self._start_or_stop(owner):
                    return await self._stop()
                if self._reload:
                    from seamline.run.reload import watch  # the watcher is heavy, and seldom wanted

                    owner.spawn(watch(self), name="reload")
                await self._stopping.wait()
                return await self._stop()
            finally:
                await self.fleet.stop()
                await server.finish()
                if self.api is not None:
                    await self.api.finish()
                if self.observing is not None:
                    await self.observing.stop()

    def _control_api(self, server: AdminServer) -> ControlApi:
        from seamline.run.api import ControlApi  # the HTTP server, which not everybody wants

        portal = self.data / PORTAL_SOCKET if self.observing is not None else None
        return ControlApi(self.settings.admin, server, self.registrar.audit, self.clock, self.settings.folder, portal)

    async def _start_or_stop(self, owner: TaskOwner) -> bool:
        """Start everything; False when a signal came first."""
        starting = self._change = owner.spawn(
            _outcome(self.fleet.start(self.placed(self.topology), self.site())), name="start"
        )
        asked = owner.spawn(self._stopping.wait(), name="stop")
        await asyncio.wait([starting, asked], return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if not starting.done():
            starting.cancel()
            return False
        if error := starting.result():
            raise error
        self.started_at = time.time()
        self._note("start", self.topology)
        if self.observing is not None:
            self.observing.start()
            self._mark("other", f"started as {self.topology}")
        if not any(each.gateway for each in self.fleet.serving):
            _log.warning("no module has a public face: nothing answers at %s", self.url)
        if self._on_ready:
            token = self.api.sessions.new_token() if self.api is not None else ""
            self._on_ready({**self.status(), "control_token": token})
        return True

    def _note(self, action: str, topology: str, **more: Any) -> None:
        """A line of audit about the topology."""
        self.registrar.audit.write(
            "topology", "allow", principal="supervisor", action=action, resource=topology, always=True, **more
        )

    def _mark(self, kind: MarkKind, title: str, modules: Sequence[str] = ()) -> None:
        """For people who look at what changed when something else did."""
        if self.observing is not None:
            self.observing.mark(kind, title, modules)

    async def _stop(self) -> Exit:
        """Drain against one deadline, and say which of the two happened."""
        assert self.stopped is not None
        if self._change and not self._change.done():
            self._change.cancel()
        timeout_s = self.settings.run.drain_timeout_s
        _log.info("stopping: finishing what is in flight, for at most %g s", timeout_s)
        async with TaskOwner("stop") as owner:
            draining = owner.spawn(self.fleet.drain(timeout_s), name="drain")
            hurried = owner.spawn(self._hurry.wait(), name="second signal")
            await asyncio.wait([draining, hurried], return_when=asyncio.FIRST_COMPLETED)
            drained: bool | None = draining.result() if draining.done() else None
        if drained is None:
            self.fleet.kill()
            await self.fleet.stop()
            self.stopped.set_result(False)
            _log.warning("stopped at once, by a second signal")
            return Exit.FAST
        await self.fleet.stop()
        self._note("stop", self.topology, drained=drained)
        if drained:
            _log.info("stopped: everything in flight was finished")
        else:
            _log.warning("stopped by force: work was in flight at the deadline of %g s", timeout_s)
        self.stopped.set_result(drained)
        return Exit.STOPPED if drained else Exit.FORCED

    def _on_signal(self) -> None:
        (self._hurry if self.stopping else self._stopping).set()

    def request_stop(self) -> None:
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    # What runs.

    def site(self) -> Site:
        """What new replicas get to know."""
        return Site(
            folder=self.settings.folder,
            data=self.data,
            control=self.data / CONTROL_SOCKET,
            supervisor_pid=os.getpid(),
            public=self._public_fd,
            ai=self._ai_fd,
            settings=self.settings.run,
            log_level=self.settings.telemetry.log_level,
            host_factory=self._host_factory,
            environment=workers_environment(self.settings),
            fork_server=self.fleet.fork_server,
            book=self.book,
            telling=str(self.data / TELLING_SOCKET) if self.observing is not None else "",
            on_change=self.fleet.note_change,
            on_announce=self.fleet.wake_others,
        )

    def placed(self, topology: str) -> tuple[Workload, ...]:
        """The workloads of ``topology``, with the replicas asked for."""
        return place(
            self.settings, topology, replicas=self.replicas, outside=self.fleet.outside, sidecars=self.sidecars
        )

    def _url_of(self, public: socket.socket) -> str:
        scheme = "https" if self.settings.gateway.tls_certificate else "http"
        return f"{scheme}://{_shown(public)}"

    def status(self) -> dict[str, Any]:
        """Everything about what runs, for JSON."""
        workloads: dict[str, dict[str, Any]] = {}
        for each in sorted(self.fleet.replicas, key=lambda one: (one.workload.name, one.index, one.generation)):
            entry = workloads.setdefault(
                each.workload.name, {"name": each.workload.name, "modules": list(each.workload.modules), "replicas": []}
            )
            entry["replicas"].append(_replica_status(each))
        return {
            "app": self.settings.app.name,
            "topology": self.topology,
            "generation": self.fleet.generation,
            "pid": os.getpid(),
            "url": self.url,
            "ai_url": self.ai_url,
            "control_url": self.api.url if self.api is not None else "",
            "portal": self.observing is not None and self.api is not None and self.settings.observe.store,
            "observer": {"pid": self.observing.pid, "restarts": self.observing.restarts} if self.observing else None,
            "data": str(self.data),
            "started_at": self.started_at,
            "ready": self.started_at > 0,
            "changing": self._change is not None and not self._change.done(),
            "workloads": list(workloads.values()),
        }

    # What changes.

    async def switch(self, topology: str, say: Say) -> Change:
        """Bring ``topology`` up beside what runs, move over, and drain what it replaces."""
        self._check_not_busy()
        fresh = self._reread()
        workloads = self.placed(topology)
        change = await self._changing(self.fleet.change(workloads, self.site(), say, fresh=fresh))
        self._note("switch", topology, before=self.topology)
        self._mark("switch", f"topology {self.topology} to {topology}")
        self.topology = self.fleet.topology = topology
        await self.fleet.publish()
        return change

    async def scale(self, counts: Mapping[str, int], say: Say) -> Change:
        """Give workloads, named themselves or by one of their modules, so many replicas."""
        names: dict[str, int] = {}
        for name, number in counts.items():
            if number < 1:
                raise UnknownTargetError(f"{name} = {number} replicas", "A workload needs one replica or more.")
            names[self.workload_of(name)] = number
        before = dict(self.replicas)
        self.replicas |= names
        try:
            change = await self._changing(self.fleet.change(self.placed(self.topology), self.site(), say))
        except BaseException:
            self.replicas = before
            raise
        self._mark("scale", ", ".join(f"{name} to {number}" for name, number in names.items()), self._hosted_by(names))
        return change

    async def restart(self, workload: str | None, say: Say) -> Change:
        """New processes for one workload or for all, one workload after the other."""
        workloads = self.placed(self.topology)
        names = [each.name for each in workloads] if workload is None else [self.workload_of(workload)]
        change = await self._changing(self._roll(workloads, names, say))
        self._mark("restart", f"restart of {', '.join(names)}", self._hosted_by(names))
        return change

    async def replace_external(self, external: Mapping[str, Address], say: Say) -> Change:
        """Have something else host these modules from now on, and only these."""
        before = self.fleet.outside
        self.fleet.outside = dict(external)
        try:
            return await self._changing(self.fleet.change(self.placed(self.topology), self.site(), say))
        except BaseException:
            self.fleet.outside = before
            raise

    async def put_beside(self, module: str, sidecar: SidecarSettings | None, say: Say) -> Change:
        """Have a service in another language answer for ``module`` from now on, or the module itself again."""
        self.workload_of(module)
        before = dict(self.sidecars)
        self.sidecars.pop(module, None)
        if sidecar is not None:
            self.sidecars[module] = sidecar
        try:
            return await self._changing(self.fleet.change(self.placed(self.topology), self.site(), say))
        except BaseException:
            self.sidecars = before
            raise

    async def reload(self, modules: Collection[str], say: Say) -> Change | None:
        """Restart what hosts ``modules`` after their source, or all after the settings, changed."""
        names = set(self._reread())
        workloads = self.placed(self.topology)
        names |= {each.name for each in workloads if set(each.modules) & set(modules)}
        if not names:
            return None
        change = await self._changing(self._roll(workloads, sorted(names), say))
        self._mark("release", f"new code of {', '.join(sorted(modules)) or 'all'}", sorted(modules))
        return change

    async def reload_policy(self) -> None:
        """Have every worker read the policy again. Raises ControlError with what one of them found wrong."""
        await self.registrar.keeping.reload_policy()
        await self.registrar.auditing.note_policy(self.settings)
        await asyncio.gather(*(each.ask(ReloadPolicy, 10.0) for each in self.fleet.serving if each.reachable))
        self._mark("policy", "policy read again")

    async def _roll(self, workloads: Sequence[Workload], names: Sequence[str], say: Say) -> Change:
        changes = [await self.fleet.change(workloads, self.site(), say, fresh={name}) for name in names]
        return Change(
            seconds=round(sum(each.seconds for each in changes), 3),
            started=[label for each in changes for label in each.started],
            stopped=[label for each in changes for label in each.stopped],
            kept=[each.label for each in self.fleet.serving if each.workload.name not in names],
            drained=all(each.drained for each in changes),
        )

    async def _changing(self, change: Coroutine[Any, Any, Change]) -> Change:
        """Run one change at a time, as a task that stopping can cancel."""
        try:
            self._check_not_busy()
        except BusyError:
            change.close()
            raise
        owner = TaskOwner("change")
        task = self._change = owner.spawn(_outcome(change), name="change")
        try:
            result = await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise BusyError("the application stopped in the middle of the change") from None
            raise
        if isinstance(result, SeamlineError):
            raise result
        if result.started or result.stopped:
            labels = {"started": ", ".join(result.started), "stopped": ", ".join(result.stopped)}
            self._note("change", self.topology, **labels)
        return result

    def _hosted_by(self, workloads: Collection[str]) -> list[str]:
        return [name for each in self.placed(self.topology) if each.name in workloads for name in each.modules]

    def _check_not_busy(self) -> None:
        if self.stopping:
            raise BusyError("the application is stopping")
        if self._change is not None and not self._change.done():
            raise BusyError("another change is under way", "Wait until it is done; `seamline status` tells.")

    def workload_of(self, name: str) -> str:
        """The workload called ``name``, or the one that hosts the module ``name``. Raises UnknownTargetError."""
        workloads = self.placed(self.topology)
        for each in workloads:
            if name == each.name or name in each.modules:
                return each.name
        known = ", ".join(each.name for each in workloads)
        raise UnknownTargetError(f"there is no workload or module {name!r}", f"Known: {known}.")

    def _reread(self) -> Collection[str]:
        """Read the settings again; the workloads that must be replaced for it. What was open stays open."""
        new = Settings.load(self.settings.folder)
        old = self.settings
        self.settings = replace(
            new,
            app=replace(new.app, data=old.app.data, topology=old.app.topology),
            gateway=replace(new.gateway, listen=old.gateway.listen),
            ai_gateway=replace(new.ai_gateway, listen=old.ai_gateway.listen),
        )
        same = replace(self.settings, topologies=old.topologies, replicas=old.replicas) == old
        return () if same else [each.workload.name for each in self.fleet.serving]


async def _outcome(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Its result, or the error it raised as a value: somebody waits who will raise it."""
    try:
        return await coroutine
    except SeamlineError as error:
        return error


def _shown(listener: socket.socket) -> str:
    """Where to look for it."""
    host, port = listener.getsockname()[:2]
    shown = "localhost" if host in {"0.0.0.0", "::"} else f"[{host}]" if ":" in host else host  # noqa: S104
    return f"{shown}:{port}"


def _replica_status(replica: Replica) -> dict[str, Any]:
    beat, loop = replica.beat, replica.crash_loop
    return {
        "replica": replica.index,
        "generation": replica.generation,
        "pid": replica.pid,
        "state": replica.state.value,
        "gateway": replica.gateway,
        "mesh": f"{replica.address.host}:{replica.address.port}",
        "restarts": replica.restarts,
        "ready_s": replica.ready_s,
        "cpu_percent": replica.cpu_percent,
        "rss_mb": round(beat.rss_bytes / 1e6, 1) if beat else 0.0,
        "loop_lag_ms": beat.lag_ms if beat else 0.0,
        "crash_loop": {
            "crashes": loop.crashes,
            "window_s": loop.window_s,
            "ended": loop.ended,
            "log": loop.log,
            "retry_s": loop.retry_s,
        }
        if loop
        else None,
    }


def exit_of(error: SeamlineError) -> Exit:
    """The exit status that belongs to an error."""
    if isinstance(error, SettingsError) or error.code.startswith(("SL1", "SL2")):
        return Exit.SETTINGS
    match error:
        case PortTakenError():
            return Exit.PORT_TAKEN
        case AlreadyRunningError():
            return Exit.ALREADY_RUNNING
        case StartFailedError():
            return Exit.START_FAILED
        case NotRunningError():
            return Exit.FAILED
        case _:
            return Exit.FAILED


def run(settings: Settings, **options: Any) -> Exit:
    """Run a supervisor, whose arguments these are, until it stops. Raises SeamlineError."""

    async def main() -> Exit:
        return await Supervisor(settings, **options).run()

    return asyncio.run(main())
