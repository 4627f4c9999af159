"""All replicas: started, changed, published to one another, drained, stopped.

A change is one and the same thing for a switch of topology, a scaling and a restart: the new replicas start beside
the old ones, which serve on; once all are ready everyone learns the new endpoints and the new gateway accepts on the
public socket, which all generations hold open; then the old ones drain and go. If one of the new ones does not
become ready they all go, and nothing has changed.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from seamline.kernel.errors import SeamlineError
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings import RunSettings
from seamline.kernel.signal import log
from seamline.run.control import Address, Endpoints, Inject, Route, ServePublic, Wake
from seamline.run.errors import ControlError, StartFailedError, SwitchFailedError
from seamline.run.fork_server import ForkServer
from seamline.run.placement import Workload
from seamline.run.replica import Replica, Site, State

_log = log.get("seamline.run")
_ACK_S = 5.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Change:
    """What a change did. Lists hold labels such as ``orders#1``."""

    seconds: float
    started: list[str]
    stopped: list[str]
    kept: list[str]
    drained: bool
    """False when a replica still had work in flight at its deadline."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Fleet:
    """The replicas of one supervisor.

    Args:
        folder: the application's.
        settings: how they are started and stopped.
    """

    def __init__(self, folder: Path, settings: RunSettings) -> None:
        self.replicas: list[Replica] = []
        """Everyone with a process, those that start and those that leave included."""
        self.serving: list[Replica] = []
        """Whose endpoints are published."""
        self.outside: dict[str, Address] = {}
        """Modules that something else hosts."""
        self.public_open = False
        self.rules: dict[str, dict[str, Any]] = {}
        """Faults to inject; a new worker learns them when it is ready."""
        self.topology = ""
        """The name of the topology in force."""
        self.fork_server = ForkServer(folder)
        self._settings = settings
        self._generation = 0
        self._owner = TaskOwner("fleet")
        self._changed = asyncio.Event()
        self._publishing = asyncio.Lock()

    @property
    def generation(self) -> int:
        return self._generation

    def endpoints(self) -> dict[str, list[Address]]:
        """Where each module can be called now."""
        found: dict[str, list[Address]] = {}
        for replica in self.serving:
            if replica.state is State.READY:
                for module in replica.workload.modules:
                    version = replica.versions.get(module, "")
                    wire = "http" if replica.workload.sidecar else ""
                    address = msgspec.structs.replace(replica.address, version=version, wire=wire)
                    found.setdefault(module, []).append(address)
        for module, address in self.outside.items():
            found[module] = [address]
        return found

    def routes(self) -> list[Route]:
        """The public faces of all modules, each once."""
        return list(dict.fromkeys(route for replica in self.serving for route in replica.routes))

    def wake_others(self, announcer: Replica, topics: Sequence[str]) -> None:
        """Pass on that something was written to those who host the same modules (``events/<module>``)."""
        for replica in self.replicas:
            hosted = [topic for topic in topics if topic.partition("/")[2] in replica.workload.modules]
            if hosted and replica is not announcer:
                replica.tell(Wake(topics=hosted))

    def note_change(self) -> None:
        """A replica came or went: publish soon."""
        self._changed.set()

    async def keep_published(self) -> None:
        """Publish after every change, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.publish()

    async def publish(self) -> None:
        """Tell every worker where the modules are, then let ready gateways accept; returns when they have."""
        async with self._publishing:
            news: dict[str, Any] = {"endpoints": self.endpoints(), "routes": self.routes(), "topology": self.topology}
            ready = [each for each in self.replicas if each.reachable and each.state is not State.STARTING]
            for replica in self.replicas:
                if replica.reachable and replica.state is State.STARTING:
                    # It may call others while it starts; its answer is not waited for.
                    replica.tell(Endpoints(number=0, **news))
            await self._spread_rules(ready)  # before anybody knows where the new ones are
            await _together(each.ask(Endpoints, _ACK_S, **news) for each in ready)
            if self.public_open:
                await self._open_gateways()

    async def _spread_rules(self, ready: Sequence[Replica]) -> None:
        """Processes that are new learn the faults that are injected into the others."""
        new = [each for each in ready if self.rules and each.rules_pid != each.pid]
        for replica in new:
            replica.rules_pid = replica.pid
        await _together(each.ask(Inject, _ACK_S, rules=self.rules) for each in new)

    async def _open_gateways(self) -> None:
        waiting = [
            each for each in self.serving if each.gateway and each.state is State.READY and each.public_pid != each.pid
        ]
        for replica in waiting:
            replica.public_pid = replica.pid
        await _together(each.ask(ServePublic, _ACK_S) for each in waiting)

    async def start(self, workloads: Sequence[Workload], site: Site) -> None:
        """Start everything at once; returns when all is ready. Raises StartFailedError, or what a worker reported."""
        self._want_copies(workloads)
        self.serving = self._spawn(((w, i) for w in workloads for i in range(w.replicas)), site)
        await _all_ready(self.serving)
        self.public_open = True
        await self.publish()

    async def change(
        self, workloads: Sequence[Workload], site: Site, say: Say, *, fresh: Collection[str] = ()
    ) -> Change:
        """Bring what runs to ``workloads``; those named in ``fresh`` are replaced even if they fit.

        Raises SwitchFailedError; what ran before then still runs.
        """
        began = time.monotonic()
        wanted = {workload.name: workload for workload in workloads}
        before = self.serving
        kept = [each for each in before if each.workload.name not in fresh and _fits(each, wanted)]
        places = {(each.workload.name, each.index) for each in kept}
        missing = [(w, i) for w in workloads for i in range(w.replicas) if (w.name, i) not in places]
        leaving = [each for each in before if each not in kept]
        self._want_copies(workloads)
        added = self._spawn(missing, site)
        if added:
            say(f"starting {_labels(added)}")
        try:
            await _all_ready(added)
            if any(each.gateway for each in before) and not any(each.gateway for each in (*kept, *added)):
                raise StartFailedError("none of the new workloads serves the public side")
            self.serving = [*kept, *added]
            say(f"moving calls and the public side, draining {_labels(leaving) or 'nothing'}")
            await self.publish()
        except SeamlineError as error:
            self.serving = before
            await asyncio.gather(*(each.stop() for each in added))
            await self.publish()
            raise SwitchFailedError(
                f"rolled back, and what ran before still runs. {error}",
                "Put that right and try again.",
            ) from error
        for replica in kept:
            replica.workload = wanted[replica.workload.name]
        drained = await asyncio.gather(*(each.drain(self._settings.drain_timeout_s) for each in leaving))
        await asyncio.gather(*(each.stop() for each in leaving))
        if not self.fork_server.wanted:
            self.fork_server.close()
        return Change(
            seconds=round(time.monotonic() - began, 3),
            started=[each.label for each in added],
            stopped=[each.label for each in leaving],
            kept=[each.label for each in kept],
            drained=all(drained),
        )

    async def drain(self, timeout_s: float) -> bool:
        """Refuse the public, finish what is in flight, gateways first; whether all of it was finished."""
        deadline = time.monotonic() + timeout_s
        drained = True
        for gateway in (True, False):
            part = [each for each in self.replicas if each.gateway is gateway]
            left_s = max(0.1, deadline - time.monotonic())
            drained &= all(await asyncio.gather(*(each.drain(left_s) for each in part)))
        return drained

    async def stop(self) -> None:
        """End every process."""
        self.fork_server.wanted = False
        await asyncio.gather(*(each.stop() for each in list(self.replicas)))
        await self._owner.stop()
        self.fork_server.close()

    def kill(self) -> None:
        for replica in self.replicas:
            replica.kill()

    def _want_copies(self, workloads: Iterable[Workload]) -> None:
        several = sum(each.replicas for each in workloads) > 1
        self.fork_server.wanted = several and self._settings.fork and sys.platform == "linux"

    def _spawn(self, places: Iterable[tuple[Workload, int]], site: Site) -> list[Replica]:
        self._generation += 1
        added = [Replica(workload, index, self._generation, site) for workload, index in places]
        self.replicas += added
        for replica in added:
            self._owner.spawn(self._keep(replica), name=repr(replica))
        return added

    async def _keep(self, replica: Replica) -> None:
        try:
            await replica.run()
        finally:
            self.replicas.remove(replica)


def _fits(replica: Replica, wanted: Mapping[str, Workload]) -> bool:
    workload = wanted.get(replica.workload.name)
    return (
        workload is not None
        and set(workload.modules) == set(replica.workload.modules)
        and workload.sidecar == replica.workload.sidecar
        and replica.index < workload.replicas
    )


def _labels(replicas: Iterable[Replica]) -> str:
    return ", ".join(each.label for each in replicas)


async def _all_ready(replicas: Sequence[Replica]) -> None:
    """Return when all are ready; raise the first failure at once."""
    results = asyncio.gather(*(each.first_ready for each in replicas), return_exceptions=False)
    try:
        await results
    finally:
        for replica in replicas:
            replica.first_ready.add_done_callback(_heard)


def _heard(future: asyncio.Future[None]) -> None:
    """Take the exceptions of those that failed after the first, which was enough."""
    if not future.cancelled():
        future.exception()


async def _together(requests: Iterable[Any]) -> None:
    """Wait for all answers; a worker that does not answer is told of and not waited for."""
    for result in await asyncio.gather(*requests, return_exceptions=True):
        if isinstance(result, ControlError):
            _log.warning("%s", result)
        elif isinstance(result, BaseException):
            raise result
