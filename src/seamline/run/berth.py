"""What a worker and the host of its modules know of each other; tests put another host in."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from seamline.kernel.clock import SystemClock
from seamline.kernel.settings import SidecarSettings
from seamline.run.control import Address, Route

if TYPE_CHECKING:
    from seamline.gateway.limits.sharing import Store
    from seamline.kernel.audit import AuditLog
    from seamline.mesh.identity import WorkloadIdentity
    from seamline.observe.records import Batch
    from seamline.secrets.interface import Source


class Hosting(Protocol):
    """What a worker asks of the host of its modules."""

    gateway: bool
    """Whether it can serve the public socket."""
    routes: Sequence[Route]
    """The public faces of its own modules."""
    versions: Mapping[str, str]
    """Its modules to the versions of their code, where they have one."""
    audit: AuditLog
    """Where the decisions made there are written."""

    async def start(self) -> None: ...
    async def serve_mesh(self, listener: socket.socket) -> None: ...
    async def serve_public(self, listener: socket.socket, ai: socket.socket | None) -> None:
        """Let strangers in: to the gateway, and to the AI gateway if it has a socket."""
        ...

    def set_endpoints(self, endpoints: Mapping[str, Sequence[Address]], routes: Sequence[Route]) -> None: ...
    def reload_policy(self) -> None: ...
    def inject(self, rules: Mapping[str, Mapping[str, Any]]) -> None: ...
    def revoke(self, entries: Sequence[Mapping[str, Any]]) -> None: ...
    def stats(self) -> dict[str, Any]: ...
    def wake(self, topics: Sequence[str]) -> None: ...
    def tell(self) -> Iterable[Batch]:
        """What there is to tell since the last time."""
        ...

    async def ask(self, room: str, operation: str, arguments: dict[str, Any]) -> Any: ...
    async def drain(self, timeout_s: float) -> bool: ...
    async def stop(self) -> None: ...


@dataclass(frozen=True)
class Berth:
    """What a host is built from."""

    folder: Path
    data: Path
    workload: str
    """With the replica's number, if it is not the first."""
    modules: tuple[str, ...]
    identity: WorkloadIdentity
    clock: SystemClock
    announce: Callable[[str], None]
    """Tells the processes that host the same module that something was written there (``events/<module>``)."""
    revoke: Callable[[list[dict[str, Any]]], None]
    """Tells everybody what is no longer good."""
    secrets: Source | None = None
    """Whom to ask for secrets."""
    limits: Store | None = None
    """Who adds up what the gateways of this machine let through."""
    sidecar: SidecarSettings | None = None
    """Of the service that answers for the module, where it is not Python's."""


Factory = Callable[[Berth], Hosting]
