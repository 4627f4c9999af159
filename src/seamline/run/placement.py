"""Which modules share a process: a topology as workloads."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from seamline.kernel.settings import Settings, SidecarSettings
from seamline.run.errors import UnknownTargetError


@dataclass(frozen=True, slots=True)
class Workload:
    """One process, or several alike, that hosts ``modules``."""

    name: str
    modules: tuple[str, ...]
    replicas: int = 1
    sidecar: SidecarSettings | None = None
    """Of the service in another language that answers for its one module."""


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
    sidecars: Mapping[str, SidecarSettings] | None = None,
) -> tuple[Workload, ...]:
    """The workloads of ``topology``.

    Args:
        settings: the application's.
        topology: one of ``settings.topologies``.
        replicas: by workload or module, stronger than ``[replicas]``, which speaks of modules that are alone.
        outside: modules that something else hosts.
        sidecars: by module, beside those of the settings.
    """
    counts = replicas or {}
    beside = {
        **{name: each for name, each in settings.sidecars.items() if topology in (each.topologies or (topology,))},
        **(sidecars or {}),
    }
    workloads: list[Workload] = []
    for name, members in groups(settings, topology).items():
        modules = tuple(module for module in members if module not in outside and module not in beside)
        if modules:
            alone = settings.replicas.get(members[0], 1) if len(members) == 1 else 1
            workloads.append(Workload(name, modules, counts.get(name, alone)))
        for module in members:
            if module in beside and module not in outside:
                own = f"{module}-sidecar" if modules and name == module else module
                count = counts.get(own, settings.replicas.get(module, 1))
                workloads.append(Workload(own, (module,), count, beside[module]))
    return tuple(workloads)


def _name(group: str, modules: tuple[str, ...]) -> str:
    return modules[0] if len(modules) == 1 else group


GATEWAY = "gateway"
"""The identity under which public requests are made."""


def identities(settings: Settings, modules: Collection[str]) -> list[str]:
    """Who a workload of ``modules`` is: its modules, and the gateway where it hosts the front."""
    return [*modules, GATEWAY] if front_module(settings) in modules else list(modules)


def front_module(settings: Settings) -> str | None:
    """The module whose public face is at ``/``, found without importing it: the gateway lives in its workload.

    A route for ``/`` in ``[gateway]`` decides; else the first module that mounts at ``/``; else the first that mounts;
    else, if there is an AI gateway, the first module.
    """
    for route in settings.gateway.routes:
        if route.path == "/" and not route.host:
            return route.module
    root = str(settings.folder)
    if root not in sys.path:
        sys.path.insert(0, root)
    mounting: list[tuple[str, bool]] = []
    for name, package in settings.modules.items():
        file = _source_of(package)
        if file is not None:
            mounting += [(name, at_root) for at_root in _mounts(file, file.stat().st_mtime_ns)]
    at_root = [name for name, is_root in mounting if is_root]
    some = list(settings.modules) if settings.ai_gateway.listen else []
    return (at_root or [name for name, _ in mounting] or some or [None])[0]


def _source_of(package: str) -> Path | None:
    path = Path(*package.split(".")) / "module.py"
    for entry in sys.path:
        file = Path(entry or ".") / path
        if file.is_file():
            return file
    return None


@functools.lru_cache(maxsize=256)
def _mounts(file: Path, changed_ns: int) -> tuple[bool, ...]:  # noqa: ARG001  # a change makes it read anew
    """For every ``module.mount(...)`` in the file, whether it is at the root."""
    try:
        source = file.read_text(encoding="utf-8")
        if "mount" not in source:
            return ()
        tree = ast.parse(source)
    except (SyntaxError, OSError, UnicodeDecodeError):
        return ()
    found: list[bool] = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "mount"):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "module"):
            continue
        keywords = {k.arg: k.value for k in node.keywords}
        at, host = keywords.get("at"), keywords.get("host")
        found.append(host is None and (at is None or (isinstance(at, ast.Constant) and at.value == "/")))
    return tuple(found)
