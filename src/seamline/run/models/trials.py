"""Models, as the supervisor shows them and lets people try them: it asks those who host them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, cast

from seamline.kernel.errors import SeamlineError
from seamline.run.errors import ControlError, UnknownTargetError
from seamline.run.placement import GATEWAY
from seamline.run.rooms import ask_room

if TYPE_CHECKING:
    from seamline.run.operations import Answer
    from seamline.run.replica import Replica
    from seamline.run.supervisor import Supervisor

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
        return await self._followed(replica, answer, asked)

    async def evaluate(self, request: dict[str, Any], answer: Answer) -> dict[str, Any]:
        """What ``evaluate`` of each of the ``versions`` of ``contract`` says, or of all that have one; with ``cases``
        (``method``, ``arguments``, ``expected``) how many each answers right; with a ``dataset`` what each answers to
        the ``last`` calls that were captured there. ``examples`` is how many of them are told one by one."""
        contract, replica, versions = await self._known(request, answer, "evaluating")
        told = {name: request.get(name) for name in ("cases", "dataset", "last", "examples")}
        asked = {"job": "evaluate", "contract": contract, "versions": versions, **told}
        return {"contract": contract} | await self._followed(replica, answer, asked)

    async def replay(self, request: dict[str, Any], answer: Answer) -> dict[str, Any]:
        """What ``version`` of ``contract``, or that which answers today, and today's rules, or those of ``policy``
        (texts by name), would decide of what was decided in the last ``since_s`` seconds."""
        version = str(request.get("version") or "")
        wanted = {"contract": request["contract"], "versions": [version] if version else []}
        contract, replica, versions = await self._known(wanted, answer, "replaying")
        asked: dict[str, Any] = {
            "job": "replay", "contract": contract, "versions": versions, "since_s": float(request["since_s"]),
            "policy": request.get("policy") or {},
        }  # fmt: skip
        return {"contract": contract} | await self._followed(replica, answer, asked)

    async def _known(self, request: dict[str, Any], answer: Answer, what: str) -> tuple[str, Replica, list[str]]:
        """The contract, who hosts it, and those of its versions that were asked for. Raises UnknownVersionError."""
        contract, versions = str(request["contract"]), [str(each) for each in request.get("versions") or ()]
        rollouts = self._supervisor.rollouts
        declared = await rollouts.declared(contract)
        if unknown := [each for each in versions if each not in declared]:
            from seamline.models.rollout.errors import UnknownVersionError

            raise UnknownVersionError(f"{contract} has no version {unknown[0]!r}", f"It has {', '.join(declared)}.")
        answer.say(f"{what} {', '.join(versions) + ' of ' if versions else ''}{contract}")
        return contract, self._host(rollouts.module_of(contract)), versions

    async def _followed(self, replica: Replica, answer: Answer, asked: dict[str, Any]) -> dict[str, Any]:
        """Begin it there, pass its pieces on, and say what it ended in; it ends when nobody follows any more."""
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
        return await ask_room(replica, "models", operation, arguments, _MORE_S)
