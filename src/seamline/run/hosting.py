"""The host a worker runs unless it is told otherwise: the application's modules on the mesh."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from seamline.mesh.balance import Endpoint
from seamline.mesh.identity.revocation import Revocation
from seamline.run.application import Application
from seamline.run.berth import Berth
from seamline.run.control import Address, Route
from seamline.run.faces import PublicRoute
from seamline.run.host import Host
from seamline.run.placement import front_module
from seamline.run.signals import Signals

if TYPE_CHECKING:
    from seamline.kernel.signal.measures import Measure
    from seamline.observe.records import Batch
    from seamline.run.drilling import Drilling


class ModuleHosting:
    """Puts a :class:`Host` behind what a worker asks."""

    def __init__(self, berth: Berth) -> None:
        application = Application.load(berth.folder, only=berth.modules)
        policy = application.policy()
        application.check(policy)
        self._host = Host(
            application,
            policy=policy,
            modules=berth.modules,
            data=berth.data,
            identity=berth.identity,
            clock=berth.clock,
            workload=berth.workload,
            announce=berth.announce,
            secrets=berth.secrets,
            limits=berth.limits,
        )
        self._host.mesh.revocations.spread = lambda entries: berth.revoke([msgspec.to_builtins(e) for e in entries])
        self._modules = set(berth.modules)
        self.routes: Sequence[Route] = [Route(*route) for route in self._host.mounts()]
        self.versions: Mapping[str, str] = {
            name: module.version for name, module in application.modules.items() if module.version
        }
        front = front_module(application.settings)
        self.gateway = front in self._modules
        self.audit = self._host.audit
        self._signals = Signals(
            application.settings.telemetry,
            self._host.mesh.tracer,
            self._host.take_flows,
            (self._take_measures,),
            folders={module.name: module.folder for module in self._host.modules},
            versions=self.versions,
        )
        self._drilling: Drilling | None = None

    async def start(self) -> None:
        await self._host.start()

    async def serve_mesh(self, listener: socket.socket) -> None:
        await self._host.serve_mesh(listener)

    async def serve_public(self, listener: socket.socket, ai: socket.socket | None) -> None:
        await self._host.serve_public(listener, ai)

    def set_endpoints(self, endpoints: Mapping[str, Sequence[Address]], routes: Sequence[Route]) -> None:
        self._host.set_endpoints(
            {
                module: [
                    Endpoint(each.host, each.port, each.weight, each.workload, each.version, each.wire)
                    for each in found
                ]
                for module, found in endpoints.items()
            }
        )
        elsewhere = [each for each in routes if each.module not in self._modules]
        self._host.set_routes(PublicRoute(each.module, each.at, each.host) for each in elsewhere)

    def reload_policy(self) -> None:
        self._host.reload_policy()

    def inject(self, rules: Mapping[str, Mapping[str, Any]]) -> None:
        self._host.inject(rules)

    def revoke(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._host.mesh.revocations.kept(Revocation(**entry) for entry in entries)

    def stats(self) -> dict[str, Any]:
        return self._host.stats()

    def wake(self, topics: Sequence[str]) -> None:
        self._host.wake(topics)

    def tell(self) -> Iterable[Batch]:
        return self._signals.gather()

    async def ask(self, room: str, operation: str, arguments: dict[str, Any]) -> Any:
        if room == "drill":
            return await self._drill(operation, arguments)
        return await self._host.ask(room, operation, arguments)

    async def drain(self, timeout_s: float) -> bool:
        return await self._host.drain(timeout_s)

    def _take_measures(self) -> Iterable[Measure]:
        found = self._host.take_measures()
        return found if self._drilling is None else self._drilling.shifted(found)

    async def _drill(self, operation: str, arguments: dict[str, Any]) -> Any:
        if self._drilling is None:
            from seamline.run.drilling import Drilling  # what hardly any process ever needs

            self._drilling = Drilling(self._host)
        return await self._drilling.ask(operation, arguments)

    async def stop(self) -> None:
        if self._drilling is not None:
            await self._drilling.stop()
        self._signals.stop()
        await self._host.stop()


def host(berth: Berth) -> ModuleHosting:
    return ModuleHosting(berth)
