"""What a callee knows of one caller at one method, looked up once: the handler, policy's answer, the counters.

It is good until anything changes that it depends on: the policy, what is served here, the rules. While a module is
quarantined, perhaps for a time only, nothing is remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seamline.kernel.signal.metrics import QUICK
from seamline.mesh.outcome import NO_FAILURES, OK, status_of
from seamline.mesh.told import served

if TYPE_CHECKING:
    from seamline.mesh.mesh import Mesh
    from seamline.mesh.policy import Condition
    from seamline.mesh.service import Entry
    from seamline.module.context import CallContext


class Door:
    """One method of this process, as one caller finds it."""

    __slots__ = ("_mesh", "decision", "entry", "epoch", "generation", "plain", "policy", "quick", "stats")

    def __init__(self, mesh: Mesh, caller: str, entry: Entry) -> None:
        self._mesh = mesh
        self.entry = entry
        self.generation = mesh.generation
        self.policy = mesh.policy
        self.epoch = mesh.policy.epoch
        self.decision: bool | Condition = mesh.decision(caller, entry.module, entry.spec)
        self.plain = mesh.policy.point is None and entry.rules.inject_error != "crash"
        """Nothing comes between the checks and the handler."""
        self.stats = mesh.tracer.flows.stats(caller, entry.module, entry.name, "server")
        self.quick = QUICK[: int(mesh.tracer.slow_s * 1e6)]

    def ended(self, context: CallContext, started: float, seconds: float, failure: BaseException | None = None) -> None:
        """Count a call, and record its span if its trace is recorded or is to be."""
        stats, trace = self.stats, context.origin
        if failure is None:
            try:
                stats.recent[self.quick[int(seconds * 1e6)]] += 1
                stats.sum_s += seconds
            except IndexError:
                stats.record(seconds)
            else:
                if trace is not None and trace.sampled:
                    served(self._mesh.tracer, self.entry, context, trace.span_id, started, seconds, None)
                return
        else:
            status = status_of(failure)
            stats.record(seconds, "" if status == OK else status)
        if trace is not None:
            served(self._mesh.tracer, self.entry, context, trace.span_id, started, seconds, failure)

    def refused(self, error: BaseException) -> None:
        """Count a call that did not begin."""
        status = status_of(error)
        self.stats.record(0.0, "" if status in NO_FAILURES else status)


class Doors:
    """Those that one caller has gone through."""

    def __init__(self, mesh: Mesh, caller: str) -> None:
        self._mesh = mesh
        self.caller = caller
        self._known: dict[str, Door] = {}
        self.module = ""
        """Which the caller asks: a connection is for one."""

    def find(self, method: str) -> Door | None:
        """None where the method is not served here."""
        mesh = self._mesh
        door = self._known.get(method)
        policy = mesh.policy
        if (
            door is not None
            and door.generation == mesh.generation
            and door.policy is policy
            and door.epoch == policy.epoch
            and not mesh.revocations.modules
        ):
            return door
        entry = mesh.services.entries.get(method)
        if entry is None:
            self._known.pop(method, None)
            return None
        door = self._known[method] = Door(mesh, self.caller, entry)
        self.module = entry.module
        return door
