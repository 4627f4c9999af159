"""Which modules share a process: a topology as workloads."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from seamline.kernel.settings import Settings
from seamline.run.errors import UnknownTargetError


@dataclass(frozen=True, slots=True)
class Workload:
    """One process, or several alike, that hosts ``modules``."""

    name: str
    modules: tuple[str, ...]
    replicas: int = 1


def groups(settings: Settings, topology: str) -> dict[str, tuple[str, ...]]:
    """Workload to modules. A workload is called by its group, or by its module when that is alone.

    Raises UnknownTargetError.
    """
    if topology not in settings.topologies:
        known = ", ".join(sorted(settings.topologies))
        raise UnknownTargetError(f"there is no topology {topology!r}", f"Known: {known}.")
    placed = settings.topologies[topology]
    return {_name(group, modules): modules for group, modules in placed.items() if modules}


def place(
    settings: Settings,
    topology: str,
    *,
    replicas: Mapping[str, int] | None = None,
    outside: Collection[str] = (),
) -> tuple[Workload, ...]:
    """The workloads of ``topology``.

    Args:
        settings: the application's.
        topology: one of ``settings.topologies``.
        replicas: by workload or module, stronger than ``[replicas]``, which speaks of modules that are alone.
        outside: modules that something else hosts.
    """
    counts = replicas or {}
    workloads: list[Workload] = []
    for name, members in groups(settings, topology).items():
        modules = tuple(module for module in members if module not in outside)
        if not modules:
            continue
        alone = settings.replicas.get(members[0], 1) if len(members) == 1 else 1
        workloads.append(Workload(name, modules, counts.get(name, alone)))
    return tuple(workloads)


def _name(group: str, modules: tuple[str, ...]) -> str:
    return modules[0] if len(modules) == 1 else group
