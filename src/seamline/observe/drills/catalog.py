"""The faults that a drill can plant, where each makes sense, and what would count as having found it."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from seamline.observe.incidents import SuspectKind

Where = Literal["handler", "process", "edge", "database", "events", "score"]


class Fault(msgspec.Struct, frozen=True):
    """One kind of fault. ``amount`` is in ``unit``."""

    name: str
    says: str
    where: Where
    amount: float
    unit: str
    kinds: frozenset[SuspectKind]
    """As which of these explanation may name it."""
    share: float = 1.0
    """Of how many calls, events or packets."""
    one_process: bool = True
    """Whether it can be planted where the module shares the process with those that call it."""
    many_processes: bool = True


FAULTS: Final[dict[str, Fault]] = {
    each.name: each
    for each in (
        Fault("delay", "the handler waits before it begins", "handler", 150, "ms", frozenset({"latency"})),
        Fault("network", "answers on the way to the caller are held back", "edge", 80, "ms", frozenset({"network"}),
              one_process=False),
        Fault("loss", "packets to the caller are lost, and come again as TCP sends them again", "edge", 200, "ms",
              frozenset({"network"}), share=0.3, one_process=False),
        Fault("error", "the handler ends in an error that its contract does not declare", "handler", 0, "",
              frozenset({"errors", "code"}), share=0.5),
        Fault("fault", "the handler ends in a fault of its contract", "handler", 0, "", frozenset({"errors", "code"}),
              share=0.5),
        Fault("exception", "an exception is raised in the module's code", "handler", 0, "",
              frozenset({"errors", "code"}), share=0.3),
        Fault("empty", "the handler leaves out its work and gives an empty answer", "handler", 0, "",
              frozenset({"code", "latency"})),
        Fault("cpu", "the handler burns processor time", "handler", 8, "ms", frozenset({"cpu", "latency", "blocked"})),
        Fault("burn", "the module burns processor time in the background", "process", 0.6, "cores",
              frozenset({"cpu", "blocked"})),
        Fault("block", "the handler holds up the event loop", "handler", 150, "ms", frozenset({"blocked", "latency"}),
              share=0.15),
        Fault("leak", "memory is kept with every call", "handler", 1.0, "MB", frozenset({"memory"})),
        Fault("slow-sql", "every statement takes longer", "database", 60, "ms", frozenset({"database", "latency"})),
        Fault("lock", "the database's writer is held again and again", "database", 400, "ms",
              frozenset({"database", "latency"})),
        Fault("poison", "events that cannot be handled", "events", 0, "", frozenset({"queue", "errors", "code"})),
        Fault("release", "a new release of the module, which fails", "handler", 0, "",
              frozenset({"release", "errors", "code"}), share=0.5),
        Fault("drift", "the scores that the module records are shifted", "score", 0.3, "", frozenset({"drift"})),
    )
}  # fmt: skip


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A fault to hold up, as workers are told."""

    id: str
    fault: str
    module: str
    method: str = ""
    """``Cart.add``, or a contract; empty for all of the module's."""
    caller: str = ""
    """Of a fault on an edge; empty for all callers."""
    amount: float
    share: float
    lease_s: float
    """Undone after so long, unless it is said again."""
