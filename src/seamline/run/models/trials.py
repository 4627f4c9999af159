"""Models, as the supervisor shows them and lets people try them: it asks those who host them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, cast

from seamline.kernel.errors import SeamlineError
from seamline.run.admin import RefusedError
from seamline.run.control import AskRoom
from seamline.run.errors import ControlError, UnknownTargetError
from seamline.run.placement import GATEWAY

if TYPE_CHECKING:
    from seamline.run.operations import Answer
    from seamline.run.replica import Replica
    from seamline.run.supervisor import Supervisor

ROOM: Final = "models"
_MORE_S: Final = 30.0


class ModelTrials:
    """Of one application."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def stats(self, _: dict[str, Any], __: Answer) -> dict[str, Any]:
        """How models do, by process: contracts with their versions, and what the AI gateway there has counted."""
        replicas = self._serving()
        found = await asyncio.gather(*(self._ask(each, "show") for each in replicas), return_exceptions=True)
        return {
            "processes": [
                {"workload": replica.workload.name, "replica": replica.label, **told}
                for replica, told in zip(replicas, found, strict=True)
                if isinstance(told, dict)
            ]
        }

    async def perform_try(self, request: dict[str, Any], answer: Answer) -> dict[str, Any]:
        """Ask ``contract`` of ``module``, as the principal ``portal``, or an ``alias`` of the AI gateway.

        Asked is ``request``; each piece of the answer is progress.
        """
        asked = {name: request[name] for name in ("module", "contract", "alias", "request") if name in request}
        replica = await self._with_alias(str(asked["alias"])) if "alias" in asked else self._host(str(asked["module"]))
        begun = await self._ask(replica, "begin", **asked)
        try:
            while True:
                found = await self._ask(replica, "more", id=begun["id"])
                for piece in found["pieces"]:
                    answer.say(piece)
                await answer.flush()  # raises where whoever asked has gone
                if found["done"] is not None:
                    return cast("dict[str, Any]", found["done"])
        finally:
            with contextlib.suppress(SeamlineError, TimeoutError):
                await self._ask(replica, "stop", id=begun["id"])

    def _host(self, module: str) -> Replica:
        """Raises ControlError."""
        replica = next((each for each in self._serving() if module in each.workload.modules), None)
        if replica is None:
            raise ControlError(f"nobody hosts {module!r} now", "See `seamline status`.")
        return replica

    async def _with_alias(self, alias: str) -> Replica:
        """Who serves an AI gateway that has it. Raises UnknownTargetError."""
        for replica in self._serving():
            gateways = (await self._ask(replica, "show"))["ai_gateway"]
            if alias in gateways.get(GATEWAY, {}).get("targets", {}):
                return replica
        raise UnknownTargetError(f"no AI gateway that is served has a model {alias!r}", "See [ai_gateway.models].")

    def _serving(self) -> list[Replica]:
        return [each for each in self._supervisor.fleet.serving if each.reachable]

    async def _ask(self, replica: Replica, operation: str, **arguments: Any) -> dict[str, Any]:
        found = await replica.ask(AskRoom, _MORE_S, room=ROOM, operation=operation, arguments=arguments)
        if "error" in found:
            raise RefusedError(found["error"])
        return cast("dict[str, Any]", found["result"])
