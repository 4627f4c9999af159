"""The AI gateways of one process: that of strangers, and one for each module that asks for language models.

Each asks the application's own models as whom it stands for, so that policy is asked about the module itself.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seamline.kernel.clock import Clock
from seamline.kernel.settings import AiGatewaySettings
from seamline.kernel.signal.trace import Tracer
from seamline.mesh.policy import PORTAL
from seamline.module.contract import Contract
from seamline.run.placement import GATEWAY

if TYPE_CHECKING:
    from seamline.models.gateway.gateway import AiGateway
    from seamline.models.gateway.pipeline import LanguageModels

Stub = Callable[[type[Contract], str], Contract]


class AiGateways:
    """Made when they are asked for.

    Args:
        data: the folder of keys and budgets.
        contracts: of the application.
        stub: of a contract, for a caller.
    """

    def __init__(
        self,
        settings: AiGatewaySettings,
        data: Path,
        contracts: Iterable[type[Contract]],
        stub: Stub,
        clock: Clock,
        tracer: Tracer,
    ) -> None:
        self._settings = settings
        self._data = data
        self._contracts = tuple(contracts)
        self._stub = stub
        self._clock = clock
        self._tracer = tracer
        self._by_caller: dict[str, AiGateway] = {}

    def of(self, caller: str) -> AiGateway:
        """The one that stands for a module, or for the gateway. Raises ModelError."""
        found = self._by_caller.get(caller)
        if found is None:
            from seamline.models.gateway.gateway import AiGateway
            from seamline.models.members import members

            found = self._by_caller[caller] = AiGateway.open(
                self._settings,
                self._data,
                models_of_app=members(self._contracts, lambda contract: self._stub(contract, caller)),
                tracer=self._tracer,
                clock=self._clock,
            )
        return found

    def inside(self, module: str) -> LanguageModels:
        """What a module gets that asks for them in its constructor."""
        return self.of(module).inside(module)

    def by_hand(self) -> LanguageModels | None:
        """That of strangers, where it is served, as people who try it from the portal meet it."""
        served = self._by_caller.get(GATEWAY)
        return None if served is None else served.inside(PORTAL)

    async def start(self) -> None:
        """Those that were asked for so far."""
        for each in self._by_caller.values():
            await each.start()

    async def serve(self, sock: socket.socket) -> None:
        """Let strangers in on a bound socket."""
        gateway = self.of(GATEWAY)
        await gateway.start()
        await gateway.serve(sock)

    async def drain(self, timeout_s: float) -> bool:
        """Finish what strangers asked. False when time ran out."""
        gateway = self._by_caller.get(GATEWAY)
        return gateway is None or await gateway.drain(timeout_s)

    async def stop(self) -> None:
        for each in self._by_caller.values():
            await each.close()

    def stats(self) -> dict[str, Any]:
        """By who asks; for JSON."""
        return {caller: each.stats() for caller, each in self._by_caller.items()}
