"""The application in the test's own process: ``local``, and ``copy``, where values are copied between modules."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from seamline.kernel.clock import ManualClock
from seamline.mesh.identity.revocation import Revocation
from seamline.mesh.mesh import Mesh
from seamline.mesh.service import Entry
from seamline.module import Contract, compile_contract
from seamline.run.application import Application
from seamline.run.host import Host
from seamline.run.sockets import listen_public
from seamline.testing.errors import NotHereError
from seamline.testing.ground import START, policy_of
from seamline.testing.site import Fakes, Plan, Rules, check_fakes

C = TypeVar("C", bound=Contract)


class OneProcess:
    """A :class:`Site` that is one host."""

    one_process = True

    def __init__(self, plan: Plan, *, copies: bool) -> None:
        self._plan = plan
        self._copies = copies
        self._clock = ManualClock(START)
        self._port = self._ai_port = 0
        self._host: Host | None = None
        self._fakes: Fakes = {}
        self._replaced: dict[str, Entry] = {}

    async def start(self) -> None:
        application = self._plan.application
        host = Host(
            application,
            data=self._plan.data,
            policy=policy_of(application, self._plan.data),
            clock=self._clock,
            copies=self._copies,
        )
        self._host = host
        await host.start()
        # After a restart the same port, as the supervisor keeps its own.
        listener: socket.socket = listen_public("127.0.0.1", self._port)
        self._port = int(listener.getsockname()[1])
        await host.serve_public(listener, self._listen_for_ai(application))
        await self.set_fakes(self._fakes)

    def _listen_for_ai(self, application: Application) -> socket.socket | None:
        if not application.settings.ai_gateway.listen:
            return None
        listener: socket.socket = listen_public("127.0.0.1", self._ai_port)
        self._ai_port = int(listener.getsockname()[1])
        return listener

    async def stop(self) -> None:
        if self._host is not None:
            host, self._host = self._host, None
            self._replaced = {}
            await host.drain(1.0)
            await host.stop()

    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

    def ai_url(self) -> str:
        return f"http://127.0.0.1:{self._ai_port}/v1" if self._ai_port else ""

    @property
    def _running(self) -> Host:
        assert self._host is not None
        return self._host

    async def stub(self, contract: type[C], caller: str) -> C:
        return self._running.stub(contract, caller)

    async def gateway(self) -> Mesh:
        return self._running.mesh

    async def revoke(self, entry: Mapping[str, Any]) -> None:
        self._running.mesh.revocations.revoke([Revocation(**entry)])

    async def set_rules(self, rules: Rules) -> None:
        self._running.inject(rules)

    async def set_fakes(self, fakes: Fakes) -> None:
        by_module = check_fakes(self._plan.application, fakes)
        mesh = self._running.mesh
        mesh.services.entries.update(self._replaced)
        self._replaced = {}
        for module, services in by_module.items():
            for contract, service in services.items():
                names = [method.full_name for method in compile_contract(contract).methods.values()]
                self._replaced |= {name: mesh.services.entries[name] for name in names}
                mesh.provide(module, contract, service)
        mesh.refresh()
        self._fakes = fakes

    def now(self) -> datetime:
        return self._clock.now()

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)

    async def kill(self, module: str) -> list[int]:
        raise NotHereError(
            f"module {module!r} cannot be killed: the whole application is in the test's own process",
            "Ask `app.one_process` first, or mark the test with topologies=['processes'].",
        )

    async def restart(self) -> None:
        await self.stop()
        await self.start()
