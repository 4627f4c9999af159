"""Fault drills as the supervisor sees them: who may begin one, which workers hold it up, when it ends.

A drill lives as long as somebody watches it: it ends with the connection of who does. The supervisor says it again to
the workers every second, and a worker that hears nothing for some seconds takes the fault away by itself. Workers that
come meanwhile (a switch, a restart) learn of it within a second, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import msgspec

from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings.auth import loopback
from seamline.kernel.signal import log
from seamline.observe.detect.detector import SCORE_PREFIX
from seamline.observe.drills.catalog import FAULTS, Fault, Order
from seamline.observe.drills.errors import DrillRefusedError
from seamline.run.control import AskRoom
from seamline.run.errors import ControlError, UnknownTargetError

if TYPE_CHECKING:
    from seamline.run.fleet import Say
    from seamline.run.operations import Answer
    from seamline.run.replica import Replica
    from seamline.run.supervisor import Supervisor

LEASE_S: Final = 4.0
EVERY_S: Final = 1.0
WATCHED_S: Final = 5.0
"""How long a drill that is to be watched goes on when nobody does."""
FOR_S_MAX: Final = 3600.0
_ANSWER_S: Final = 10.0
_SCORE_LOOKS: Final = 6
_log = log.get("seamline.run")


class Drill:
    """One drill that runs."""

    def __init__(self, order: Order, for_s: float, *, watched: bool) -> None:
        self.order = order
        self.began = time.monotonic()
        self.until = self.began + for_s
        self.watched_until = self.began + WATCHED_S if watched else self.until
        self.struck = 0
        self.over = asyncio.Event()

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.order.id,
            "fault": self.order.fault,
            "module": self.order.module,
            "method": self.order.method,
            "seconds": round(time.monotonic() - self.began, 1),
            "left_s": round(max(self.until - time.monotonic(), 0.0), 1),
            "struck": self.struck,
        }


class Drills:
    """The drills of one application."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._owner = TaskOwner("drills")
        self._running: dict[str, Drill] = {}
        self._numbers = count(1)

    async def perform(self, request: dict[str, Any], answer: Answer) -> dict[str, Any]:
        """``run`` a fault, ``watch`` one to its end, ``end`` one, or ``list`` what runs."""
        operation = str(request.get("operation", "list"))
        if operation == "run":
            return await self._run(request, answer.say)
        if operation == "watch":
            return await self._watch(self._known(request), answer)
        if operation == "end":
            return await self._end(self._known(request))
        return {"drills": [each.to_json() for each in self._running.values()]}

    async def stop(self) -> None:
        await self._owner.stop()

    def _known(self, request: dict[str, Any]) -> Drill:
        drill = self._running.get(str(request["id"]))
        if drill is None:
            raise UnknownTargetError(f"there is no drill {request['id']!r}", "It may be over: `seamline drill list`.")
        return drill

    async def _watch(self, drill: Drill, answer: Answer) -> dict[str, Any]:
        """``drill`` lines until it is over; it is over soon after who watches has gone."""
        while not drill.over.is_set():
            drill.watched_until = time.monotonic() + WATCHED_S
            answer.line({"drill": drill.to_json()})
            await answer.flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await drill.over.wait()
        return drill.to_json()

    # Begin.

    async def _run(self, request: dict[str, Any], say: Say) -> dict[str, Any]:
        fault = FAULTS.get(str(request["fault"]))
        if fault is None:
            raise UnknownTargetError(f"there is no fault {request['fault']!r}", f"Known: {', '.join(FAULTS)}.")
        self._check_permitted(request)
        order = self._order(fault, request)
        self._check_possible(fault, order)
        for_s = min(max(float(request.get("for_s") or 30.0), 1.0), FOR_S_MAX)
        drill = Drill(order, for_s, watched=bool(request.get("watched")))
        if fault.name == "release":
            await self._new_release(order, say)
        try:
            drill.struck = await self._hold(drill)
        except ControlError as error:
            await self._end_everywhere(order.id)
            raise DrillRefusedError(f"the fault could not be planted: {error}", "See `seamline drill list`.") from error
        if fault.where == "score" and not await self._any_score(drill):
            await self._end_everywhere(order.id)
            raise DrillRefusedError(
                f"module {order.module!r} records no scores of a model",
                f"Drift is drilled where a module records a gauge whose name begins with {SCORE_PREFIX!r}.",
            )
        self._running[order.id] = drill
        self._mark(f"drill {fault.name} on {order.method or order.module} begins", order)
        self._owner.spawn(self._keep(drill), name=order.id)
        return drill.to_json()

    def _check_permitted(self, request: dict[str, Any]) -> None:
        """Where strangers may be served, it is not enough to be an operator."""
        host = self._supervisor.settings.gateway.listen.rpartition(":")[0].strip("[]")
        if loopback(host):
            return
        if not request.get("yes"):  # which an admin may say (see roles)
            raise DrillRefusedError(
                f"the application answers on {host!r}, where others can reach it: a drill would be their fault, too",
                "An admin may say --yes.",
            )

    def _order(self, fault: Fault, request: dict[str, Any]) -> Order:
        settings = self._supervisor.settings
        module, method = str(request.get("module") or ""), str(request.get("method") or "")
        if module not in settings.modules:
            raise UnknownTargetError(f"there is no module {module!r}", f"Known: {', '.join(sorted(settings.modules))}.")
        amount, share = request.get("amount"), request.get("share")
        order = Order(
            id=f"drill-{next(self._numbers)}",
            fault=fault.name,
            module=module,
            method=method,
            caller=str(request.get("caller") or ""),
            amount=fault.amount if amount is None else float(amount),
            share=fault.share if share is None else float(share),
            lease_s=LEASE_S,
        )
        if not 0 < order.share <= 1 or not 0 <= order.amount < 1e6:
            raise DrillRefusedError(
                f"an amount of {order.amount:g} in {order.share:g} of the calls cannot be planted",
                "A share lies above 0 and is at most 1.",
            )
        return order

    def _check_possible(self, fault: Fault, order: Order) -> None:
        shared = any(
            order.module in each.workload.modules and len(each.workload.modules) > 1
            for each in self._supervisor.fleet.serving
        )
        if shared and not fault.one_process:
            raise DrillRefusedError(
                f"module {order.module!r} shares its process with others: there is no network between them",
                "Switch to a topology in which it has a process of its own: `seamline topology switch services`.",
            )

    async def _new_release(self, order: Order, say: Say) -> None:
        """New processes for the module, under another version; the fault comes with them."""
        supervisor = self._supervisor
        names = [each.name for each in supervisor.placed(supervisor.topology) if order.module in each.modules]
        for name in names:
            await supervisor.restart(name, say)
        for replica in supervisor.fleet.serving:
            if order.module in replica.workload.modules:
                before = replica.versions.get(order.module) or "1"
                replica.versions = {**replica.versions, order.module: f"{before}-{order.id}"}
        await supervisor.fleet.publish()
        if supervisor.observing is not None:
            supervisor.observing.mark("release", f"{order.module} was released anew", [order.module])

    # Hold.

    async def _keep(self, drill: Drill) -> None:
        try:
            while True:
                now = time.monotonic()
                if now >= drill.until or now >= drill.watched_until:
                    return
                await asyncio.sleep(min(EVERY_S, max(drill.until - now, 0.01)))
                try:
                    drill.struck = await self._hold(drill)
                except ControlError as error:  # a worker that starts or leaves: the next time, then
                    _log.debug("drill %s: %s", drill.order.id, error)
        finally:
            self._running.pop(drill.order.id, None)
            await self._end_everywhere(drill.order.id)
            self._mark(f"drill {drill.order.fault} on {drill.order.module} is over", drill.order)
            drill.over.set()

    async def _hold(self, drill: Drill) -> int:
        answers = await self._ask_all("hold", {"order": msgspec.to_builtins(drill.order)})
        return sum(int(each["effects"]) for each in answers)

    async def _any_score(self, drill: Drill) -> bool:
        """Whether a score was there to be shifted; processes measure once a second."""
        for _ in range(_SCORE_LOOKS):
            await asyncio.sleep(EVERY_S / 2)
            drill.struck = await self._hold(drill)
            if drill.struck:
                return True
        return False

    async def _ask_all(self, operation: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        replicas = [each for each in self._supervisor.fleet.serving if each.reachable and not each.workload.sidecar]
        answers = await asyncio.gather(*(self._ask(each, operation, arguments) for each in replicas))
        return [each for each in answers if each is not None]

    async def _ask(self, replica: Replica, operation: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
        found = await replica.ask(AskRoom, _ANSWER_S, room="drill", operation=operation, arguments=arguments)
        if "error" in found:
            raise ControlError(str(found["error"].get("fact")), str(found["error"].get("remedy") or ""))
        return found["result"]

    # End.

    async def _end(self, drill: Drill) -> dict[str, Any]:
        drill.until = drill.watched_until = 0.0
        await drill.over.wait()
        return {"id": drill.order.id, "struck": drill.struck}

    async def _end_everywhere(self, name: str) -> None:
        try:
            await self._ask_all("end", {"id": name})
        except ControlError as error:
            _log.warning("%s: a worker did not answer; it ends there within %g s (%s)", name, LEASE_S, error)

    def _mark(self, title: str, order: Order) -> None:
        if self._supervisor.observing is not None:
            self._supervisor.observing.mark("drill", title, [order.module], drill=order.id)
