"""The callee's side: which handler answers a method, who may ask, how many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from seamline.kernel.settings import MeshRules
from seamline.kernel.wire.frames import Ahead
from seamline.mesh.limits import PRIORITIES, ConcurrencyLimit
from seamline.module.contract import UNARY, ContractSpec, MethodSpec
from seamline.module.values import Fault

Wrap = Callable[[MethodSpec, Callable[..., Any], Mapping[str, type[Fault]]], Callable[..., Any]]
"""Makes a handler from a handler: of which method, and which faults its contract declares."""


@runtime_checkable
class CountsTokens(Protocol):
    """A service whose calls are not alike, and which counts what each has still to do."""

    def seamline_ahead(self) -> Ahead | None:
        """What is ahead of one more call; None while too little is known."""
        ...


def together(parts: Iterable[Ahead | None]) -> Ahead | None:
    """What is ahead of one more call, of which nobody knows which part it is for."""
    known = [each for each in parts if each is not None]
    if not known:
        return None
    return Ahead(
        sum(each.wait_s for each in known), max(each.serve_s for each in known), max(each.each_s for each in known)
    )


def facts_of(spec: MethodSpec) -> dict[str, Any]:
    """What every span of a method says of it."""
    return {"rpc.system": "seamline", "rpc.service": spec.contract, "rpc.method": spec.name}


class Entry:
    """One method of a contract that this process serves."""

    __slots__ = (
        "_limited", "decode", "encode", "facts", "faults", "handler", "limit", "module", "name", "priority", "provided",
        "rules", "spec",
    )  # fmt: skip

    def __init__(
        self,
        module: str,
        spec: MethodSpec,
        handler: Callable[..., Any],
        faults: Mapping[str, type[Fault]],
        rules: MeshRules,
    ) -> None:
        self.module = module
        self.spec = spec
        self.name = spec.full_name
        self.provided = handler
        self.handler = handler
        self.faults = faults
        self.decode = spec.decode_request
        self.encode = spec.result.encode
        self.facts = facts_of(spec)
        self.limit: ConcurrencyLimit | None = None
        self._limited: tuple[int, bool] | None = None
        self.set_rules(rules)

    def set_rules(self, rules: MeshRules) -> None:
        """Follow new rules. Whoever took a place in the old limit gives it back there."""
        self.rules = rules
        self.priority = PRIORITIES[rules.priority]
        # How long a stream lives says nothing of load: only a limit that someone has set holds for streams.
        adaptive = rules.concurrency_adaptive and self.spec.kind == UNARY
        wanted = (rules.concurrency_max, adaptive)
        if wanted != self._limited:
            self._limited = wanted
            self.limit = ConcurrencyLimit(rules.concurrency_max) if any(wanted) else None


class ServiceTable:
    """The methods that this process serves, by full name (``Payments.charge``)."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.counts: dict[str, dict[str, CountsTokens]] = {}
        """By module and contract, what knows how much is ahead of a call."""

    def add(
        self,
        module: str,
        contract: ContractSpec,
        service: object,
        rules: Callable[[MethodSpec], MeshRules],
        wrap: Wrap | None = None,
    ) -> None:
        for spec in contract.methods.values():
            handler = getattr(service, spec.name)
            if wrap is not None:
                handler = wrap(spec, handler, contract.faults)
            self.entries[spec.full_name] = Entry(module, spec, handler, contract.faults, rules(spec))
        counting = self.counts.setdefault(module, {})
        counting.pop(contract.name, None)
        if isinstance(service, CountsTokens):
            counting[contract.name] = service
        if not counting:
            del self.counts[module]

    def remove(self, module: str) -> None:
        self.entries = {name: entry for name, entry in self.entries.items() if entry.module != module}
        self.counts.pop(module, None)

    def ahead(self, module: str) -> Ahead | None:
        """What one more call to a module has before it, where something here knows."""
        return together(service.seamline_ahead() for service in self.counts.get(module, {}).values())
