"""A worker process: proves who it is, gets its certificates, hosts its modules, does what the supervisor says.

``python -m seamline.run.worker <label> <options as JSON>``; the supervisor starts it. It makes its own keys, which
never leave it. When the supervisor dies the kernel kills the worker; where the kernel cannot, the end of the control
channel does.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Never, cast

import msgspec

from seamline.kernel.children import die_with_parent
from seamline.kernel.clock import SystemClock, now_ms
from seamline.kernel.errors import SeamlineError
from seamline.kernel.lifetime import TaskOwner, spare_the_collector
from seamline.kernel.signal import log
from seamline.module.context import Place, set_place
from seamline.run.asking import ControlSource, ControlStore
from seamline.run.berth import Berth, Factory, Hosting
from seamline.run.control import (
    Address,
    Announce,
    AskKey,
    AskRoom,
    AskStats,
    Audited,
    Beat,
    Bundle,
    ControlChannel,
    Done,
    Drain,
    Endpoints,
    Failed,
    Hello,
    Inject,
    Keys,
    MoveClock,
    Ready,
    Refused,
    ReloadPolicy,
    Revoke,
    Revoked,
    Route,
    SecretsTold,
    ServePublic,
    Show,
    Sign,
    Signed,
    Spent,
    Stop,
    ToWorker,
    Wake,
    Welcome,
    WorkerOptions,
    worker_decoder,
)
from seamline.run.errors import AttestationError, ControlError, Exit, StartFailedError
from seamline.run.sockets import unix_address
from seamline.run.telling import Teller

if TYPE_CHECKING:
    from seamline.kernel.audit import Written
    from seamline.mesh.identity import WorkloadIdentity
    from seamline.mesh.identity.spire import WorkloadApi

_log = log.get("seamline.run")
_DEFAULT_FACTORY = "seamline.run.hosting:host"
_STOP_S = 2.0
_LAST_WORDS_S = 0.5
_RENEWAL_RETRY_S = 30.0
_ANNOUNCE_S = 0.001
_KEYS_KEPT_S = 3600.0
"""How long a key is kept whose certificate has ended; an older one is asked for."""
_ASKED_MAX = 64
_ASK_AGAIN_S = 2.0
_Asked = Endpoints | ServePublic | Bundle | ReloadPolicy | Inject | MoveClock | AskStats | AskRoom | Drain


class Worker:
    """The one worker of this process."""

    def __init__(self, options: WorkerOptions, channel: ControlChannel[ToWorker]) -> None:
        self._options = options
        self._channel = channel
        self._clock = SystemClock()
        self._owner = TaskOwner("worker")
        self._host: Hosting | None = None
        self._endpoints: dict[str, list[Address]] = {}
        self._routes: list[Route] = []
        self._identity: WorkloadIdentity | None = None
        self._spire: WorkloadApi | None = None
        self._keys: dict[str, str] = {}
        self._told: list[tuple[str, str, str, int, int]] = []
        self._revoked: list[dict[str, Any]] = []
        self._modules: list[str] = []
        self._released = asyncio.Event()
        self._asked: set[str] = set()
        self._signed: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._ready = False
        self._secrets = ControlSource(channel.send)
        self._limits = ControlStore(channel.send)
        self._app = ""
        self._announced: set[str] = set()
        self._audited: Written | None = None
        self._teller: Teller | None = None
        self._began = time.monotonic()

    async def run(self) -> Exit:
        """Until the supervisor says stop, or is gone."""
        options = self._options
        self._channel.send(Hello(workload=options.workload, replica=options.replica, generation=options.generation))
        welcome = await self._channel.receive()
        if isinstance(welcome, Refused):
            print(f"refused: {welcome.error.get('fact')}", file=sys.stderr)  # noqa: T201  # before logs mean anything
            return Exit.REFUSED
        if not isinstance(welcome, Welcome):
            return Exit.ORPHANED
        self._clock.offset_s = welcome.clock_offset_s
        self._app = welcome.app
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._on_terminate)
        self._owner.spawn(self._listen(), name="control")
        starting = self._owner.spawn(self._start_or_report(welcome), name="start")
        status = await self._ended
        starting.cancel()
        await self._finish()
        await self._owner.stop(1.0)
        await self._channel.hang_up(_LAST_WORDS_S)
        return status

    async def _start_or_report(self, welcome: Welcome) -> None:
        try:
            await self._start(welcome)
        except SeamlineError as error:
            self._fail(error.to_json())
        except Exception as error:  # whatever the application raises while it starts
            _log.exception("%s cannot start", self._options.workload)
            fact = f"{self._options.workload!r} cannot start: {type(error).__name__}: {error}"
            self._fail(StartFailedError(fact, "The log above has the traceback.").to_json())

    def _fail(self, error: dict[str, str | None]) -> None:
        self._channel.send(Failed(error=error))
        self._end(Exit.START_FAILED)

    async def _start(self, welcome: Welcome) -> None:
        from seamline.mesh.identity import WorkloadIdentity  # heavy, and not needed by the supervisor

        options = self._options
        self._identity = identity = WorkloadIdentity(welcome.trust_domain, welcome.app)
        identity.set_foreign(_encoded(welcome.foreign))
        identity.keys.on_unknown = self._ask_key
        self._learn([*welcome.keys, *self._told])
        self._modules = welcome.modules
        if welcome.workload_api:
            certified = self._ask_spire(identity, welcome)
        else:
            identity.set_bundle(welcome.bundle.encode())
            certified = self._ask_for_certificates(welcome.modules)
        # The supervisor signs while this process imports the application.
        module, _, name = (options.host_factory or _DEFAULT_FACTORY).partition(":")
        factory = cast("Factory", getattr(importlib.import_module(module), name))
        berth = Berth(
            folder=Path(options.folder),
            data=Path(options.data),
            workload=f"{options.workload}-{options.replica}" if options.replica else options.workload,
            modules=tuple(options.modules),
            identity=identity,
            clock=self._clock,
            announce=self._announce,
            revoke=lambda entries: self._channel.send(Revoke(entries=entries)),
            secrets=self._secrets,
            limits=self._limits,
            sidecar=options.sidecar,
        )
        self._host = host = factory(berth)
        host.revoke(self._revoked)
        await certified
        host.set_endpoints(self._endpoints, self._routes)
        await host.start()
        await host.serve_mesh(socket.socket(fileno=options.mesh))
        if not host.gateway:
            for descriptor in (options.public, options.ai):
                if descriptor >= 0:
                    os.close(descriptor)
        if self._spire is None:
            self._owner.spawn(self._renew(), name="renew certificates")
        self._owner.spawn(self._beat(welcome.heartbeat_s), name="heartbeat")
        if options.telling:
            self._teller = Teller(Path(options.telling), host.tell)
            self._owner.spawn(self._teller.run(), name="telling")
        spare_the_collector()
        self._ready = True
        took_s = time.monotonic() - self._began
        self._channel.send(
            Ready(gateway=host.gateway, took_s=took_s, routes=list(host.routes), versions=dict(host.versions))
        )

    # Identity.

    def _ask_spire(self, identity: WorkloadIdentity, welcome: Welcome) -> asyncio.Task[None]:
        from seamline.mesh.identity.spire import WorkloadApi

        self._spire = WorkloadApi(
            identity,
            welcome.modules,
            welcome.workload_api,
            show=lambda chains: self._channel.send(Show(chains=chains)),
            federate=identity.set_foreign,
        )
        return self._owner.spawn(self._spire.open(), name="SPIRE")

    def _ask_for_certificates(self, modules: list[str]) -> asyncio.Future[None]:
        """Make keys and ask for their certificates; the future is done when those are installed."""
        from seamline.mesh.identity import new_key_and_csr

        requests: dict[str, str] = {}
        for module in modules:
            key, request = new_key_and_csr()
            self._keys[module] = key.decode()
            requests[module] = request.decode()
        self._signed = asyncio.get_running_loop().create_future()
        self._channel.send(Sign(requests=requests))
        return self._signed

    def _learn(self, keys: list[tuple[str, str, str, int, int]]) -> None:
        from seamline.mesh.identity.keyring import KnownKey

        if self._identity is None:
            self._told += keys
            return
        self._identity.keys.forget(before=now_ms(self._clock) / 1000 - _KEYS_KEPT_S)
        self._identity.keys.add(KnownKey(*key) for key in keys)
        self._asked -= {key[0] for key in keys}

    def _ask_key(self, kid: str) -> None:
        """Ask whose key that is, each once until there is an answer."""
        if kid not in self._asked and len(self._asked) < _ASKED_MAX:
            self._asked.add(kid)
            self._channel.send(AskKey(kid=kid))
            asyncio.get_running_loop().call_later(_ASK_AGAIN_S, self._asked.discard, kid)

    async def _renew(self) -> None:
        """New keys and certificates at about half of a certificate's life, each module in its own time."""
        from seamline.mesh.identity import next_rotation

        assert self._identity is not None
        random = Random()  # jitter, not a secret
        due: dict[str, datetime] = {}
        ends: dict[str, datetime] = {}
        while True:
            for module in self._identity.modules:
                begins, until = self._identity.validity(module)
                if ends.get(module) != until:
                    due[module], ends[module] = next_rotation(begins, until, random), until
            now = datetime.now(UTC) + timedelta(seconds=self._clock.offset_s)
            wait_s = min(((each - now).total_seconds() for each in due.values()), default=_RENEWAL_RETRY_S)
            # In short steps, because the clock may be moved.
            released = await self._released_within(min(max(wait_s, 0.05), _RENEWAL_RETRY_S))
            wanted = [module for module in self._modules if module not in ends]  # quarantined at the start
            if not released and wait_s <= _RENEWAL_RETRY_S and due:
                wanted = [min(due, key=due.__getitem__)]
            if not wanted:
                continue
            try:
                await self._ask_for_certificates(wanted)
            except SeamlineError as error:
                _log.error("no new certificate of %s: %s", ", ".join(wanted), error)  # no traceback: a fact
                await asyncio.sleep(_RENEWAL_RETRY_S)
            for module in wanted:  # one that is quarantined got none
                if module in due and self._identity.validity(module)[1] == ends[module]:
                    due[module] = now + timedelta(seconds=_RENEWAL_RETRY_S)

    async def _released_within(self, wait_s: float) -> bool:
        """Whether a quarantine is lifted before so long."""
        try:
            async with asyncio.timeout(wait_s):
                await self._released.wait()
        except TimeoutError:
            return False
        self._released.clear()
        return True

    def _install(self, message: Signed) -> None:
        assert self._identity is not None
        self._identity.set_bundle(message.bundle.encode())
        for module, chain in message.chains.items():
            self._identity.install(module, self._keys.pop(module).encode(), chain.encode())
        if self._signed and not self._signed.done():
            self._signed.set_result(None)

    # What the supervisor says.

    async def _listen(self) -> None:
        try:
            while (message := await self._channel.receive()) is not None:
                if isinstance(message, Stop):
                    self._end(Exit.STOPPED)
                    return
                self._hear(message)
        except ControlError as error:
            _log.error("%s", error)  # a fact, no traceback
        self._end(Exit.ORPHANED)

    def _hear(self, message: ToWorker) -> None:
        match message:
            case Signed():
                self._install(message)
            case Refused(error=error):
                if self._signed and not self._signed.done():
                    fact, remedy = str(error.get("fact")), error.get("remedy") or ""
                    self._signed.set_exception(AttestationError(fact, remedy))
            case SecretsTold():
                self._secrets.hear(message)
            case Spent():
                self._limits.hear(message)
            case Keys(keys=keys):
                self._learn(keys)
            case Revoked():
                self._revoke(message)
            case Endpoints(number=0):
                self._set_endpoints(message)
            case (
                Endpoints() | ServePublic() | Bundle() | ReloadPolicy() | Inject() | MoveClock()
                | AskStats() | AskRoom() | Drain()
            ):  # fmt: skip
                self._owner.spawn(self._answer(message), name=type(message).__name__)
            case Wake(topics=topics):
                if self._host is not None:
                    self._host.wake(topics)
            case _:
                raise ControlError(f"the supervisor sent a {type(message).__name__} out of turn")

    def _revoke(self, message: Revoked) -> None:
        """At once, and before whatever comes next: nothing is served in between."""
        if self._host is None:
            self._revoked += message.entries
        else:
            self._host.revoke(message.entries)
        if message.number:
            self._channel.send(Done(number=message.number))
        if self._ready and any(each["kind"] == "module" and each["lifted"] for each in message.entries):
            self._released.set()

    async def _answer(self, message: _Asked) -> None:
        try:
            result = await self._do(message)
            self._channel.send(Done(number=message.number, result=result))
        except Exception as error:  # the supervisor is told, and decides
            _log.exception("%s failed", type(message).__name__)
            self._channel.send(Done(number=message.number, error=f"{type(error).__name__}: {error}"))

    async def _do(self, message: _Asked) -> Any:
        if isinstance(message, Endpoints):
            return self._set_endpoints(message)
        if isinstance(message, Bundle):
            assert self._identity is not None
            if self._spire is None:
                self._identity.set_foreign(_encoded(message.foreign))
                self._identity.set_bundle(message.bundle.encode())
            return None
        if isinstance(message, MoveClock):
            self._clock.offset_s = message.offset_s
            return None
        host = self._host
        if host is None:
            raise ControlError(f"{self._options.workload!r} has not started yet")
        match message:
            case ServePublic():
                # A duplicate: the descriptor stays for the next time, as after a failed attempt.
                ai = self._options.ai
                return await host.serve_public(
                    socket.socket(fileno=os.dup(self._options.public)),
                    socket.socket(fileno=os.dup(ai)) if ai >= 0 else None,
                )
            case ReloadPolicy():
                return host.reload_policy()
            case Inject(rules=rules):
                return host.inject(rules)
            case AskStats():
                return host.stats()
            case AskRoom(room=room, operation=operation, arguments=arguments):
                try:
                    return {"result": await host.ask(room, operation, arguments)}
                except SeamlineError as error:
                    return {"error": error.to_json()}
            case Drain(timeout_s=timeout_s):
                return await host.drain(timeout_s)

    def _set_endpoints(self, message: Endpoints) -> None:
        self._endpoints, self._routes = message.endpoints, message.routes
        options = self._options
        set_place(Place(self._app, message.topology, options.workload, options.replica))
        if self._host is not None:
            self._host.set_endpoints(message.endpoints, message.routes)

    def _announce(self, topic: str) -> None:
        """Tell the others who host the module, if there are any; many at once become one message."""
        if len(self._endpoints.get(topic.partition("/")[2], ())) < 2:
            return
        if not self._announced:
            asyncio.get_running_loop().call_later(_ANNOUNCE_S, self._send_announced)
        self._announced.add(topic)

    def _send_announced(self) -> None:
        topics, self._announced = sorted(self._announced), set()
        self._channel.send(Announce(topics=topics))

    async def _beat(self, every_s: float) -> None:
        """Tell that the event loop turns, and how late."""
        while True:
            asked = time.monotonic()
            await asyncio.sleep(every_s)
            lag_ms = max(0.0, (time.monotonic() - asked - every_s) * 1000)
            self._channel.send(Beat(lag_ms=round(lag_ms, 2), cpu_s=time.process_time(), rss_bytes=_rss_bytes()))
            await self._tell_audited()

    async def _tell_audited(self) -> None:
        """How far the audit has come, once the disk has it: a checkpoint must not outlive the lines it speaks of."""
        written = self._host.audit.written if self._host is not None else None
        if self._host is not None and written is not None and written != self._audited:
            self._audited = written
            await asyncio.to_thread(self._host.audit.sync)
            self._channel.send(Audited(log=written.log, lines=written.number, head=written.head))

    # The end.

    def _on_terminate(self) -> None:
        """SIGTERM to the worker itself: finish what is in flight; the supervisor fills the place again."""
        self._owner.spawn(self._terminate(), name="terminate")

    async def _terminate(self) -> None:
        drained = await self._host.drain(_STOP_S) if self._host else True
        self._end(Exit.STOPPED if drained else Exit.FORCED)

    def _end(self, status: Exit) -> None:
        if not self._ended.done():
            self._ended.set_result(status)

    async def _finish(self) -> None:
        # Whatever the application's own shutdown does, the process ends.
        backstop = threading.Timer(_STOP_S + _LAST_WORDS_S + 0.5, os._exit, args=(Exit.FORCED,))
        backstop.daemon = True
        backstop.start()
        if self._host is not None:
            try:
                async with asyncio.timeout(_STOP_S):
                    await self._host.stop()
            except Exception:  # it stops all the same
                _log.exception("%s did not stop cleanly", self._options.workload)
            await self._tell_audited()
        if self._teller is not None:
            await self._teller.finish()
        if self._spire is not None:
            self._spire.close()


def _encoded(bundles: dict[str, str]) -> dict[str, bytes]:
    return {domain: each.encode() for domain, each in bundles.items()}


def _rss_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def _connect_and_run(options: WorkerOptions) -> Exit:
    with unix_address(Path(options.control)) as address:
        reader, writer = await asyncio.open_unix_connection(address)
    return await Worker(options, ControlChannel[ToWorker](reader, writer, worker_decoder())).run()


def main(options: WorkerOptions) -> int:
    """Run a worker in this process; its exit status."""
    if not die_with_parent(options.supervisor_pid):
        return Exit.ORPHANED
    # The terminal's Ctrl-C is for the supervisor, which tells us what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log.configure(options.log_level)
    sys.stdout.reconfigure(line_buffering=True)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    run: Callable[[Coroutine[Any, Any, Exit]], Exit] = asyncio.run
    if sys.platform != "win32":
        import uvloop

        run = uvloop.run
    try:
        return run(_connect_and_run(options))
    except OSError as error:
        _log.error("no control channel: %s", error)  # a fact, no traceback
        return Exit.ORPHANED


def leave(status: int) -> Never:
    """End the process. Threads that an application left behind must not keep it: all was stopped or given up."""
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main(msgspec.json.decode(sys.argv[2], type=WorkerOptions)))
