"""The callee's side: which handler answers a method, who may ask, how many at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from seamline.kernel.settings import MeshRules
from seamline.kernel.signal.metrics import EdgeStats
from seamline.mesh.limits import PRIORITIES, ConcurrencyLimit
from seamline.module.contract import ContractSpec, MethodSpec
from seamline.module.values import Fault


class Entry:
    """One method of a contract that this process serves."""

    __slots__ = (
        "callee_stats",
        "decode",
        "encode",
        "faults",
        "handler",
        "limit",
        "module",
        "name",
        "priority",
        "rules",
        "spec",
    )

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
        self.handler = handler
        self.faults = faults
        self.decode = spec.decode_request
        self.encode = spec.result.encode
        self.callee_stats: dict[str, EdgeStats] = {}
        self.set_rules(rules)

    def set_rules(self, rules: MeshRules) -> None:
        self.rules = rules
        self.priority = PRIORITIES[rules.priority]
        fixed = rules.concurrency_max
        self.limit = ConcurrencyLimit(fixed) if fixed or rules.concurrency_adaptive else None


class ServiceTable:
    """The methods that this process serves, by full name (``Payments.charge``)."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def add(
        self, module: str, contract: ContractSpec, service: object, rules: Callable[[MethodSpec], MeshRules]
    ) -> None:
        for spec in contract.methods.values():
            handler = getattr(service, spec.name)
            self.entries[spec.full_name] = Entry(module, spec, handler, contract.faults, rules(spec))

    def remove(self, module: str) -> None:
        self.entries = {name: entry for name, entry in self.entries.items() if entry.module != module}
