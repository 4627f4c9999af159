"""Raw duplex streams between processes, over which the gateway reaches a module's public HTTP face."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from seamline.kernel.settings import MeshRules
from seamline.mesh.channel import FrameChannel
from seamline.mesh.connection import ClientDuplex
from seamline.mesh.limits import Patience
from seamline.mesh.policy.world import HTTP
from seamline.module.context import NO_DEADLINE
from seamline.module.errors import Unavailable, Unimplemented, Unreachable

if TYPE_CHECKING:
    from seamline.kernel.signal.trace import TraceContext
    from seamline.mesh.balance import Replica
    from seamline.mesh.mesh import Mesh
    from seamline.module.principal import Subject

CONNECT_S = 10.0


class TunnelClient:
    """Opens streams to a module's public HTTP face, each to the replica that is least busy."""

    def __init__(self, mesh: Mesh, caller: str, module: str) -> None:
        self._mesh = mesh
        self._caller = caller
        self._module = module
        self._rules: MeshRules = mesh.settings.default

    async def open(self, subject: Subject | None = None, trace: TraceContext | None = None) -> ClientDuplex:
        """A new stream, on behalf of ``subject``, as a part of ``trace``.

        Raises PermissionDenied, Unavailable or Unauthenticated; tries another replica once.
        """
        mesh = self._mesh
        if not mesh.policy.may(
            self._caller, self._module, "", HTTP
        ):  # a condition is the face's, which sees the request
            raise mesh.denied(self._caller, self._module, ("", HTTP), subject)
        tried: list[Replica] = []
        waiting = Patience(self._rules.wait_for_ready_s, NO_DEADLINE)
        while True:
            try:
                replica = mesh.pick(self._module, self._rules, tried)
                tried.append(replica)
                return await self._open_on(replica, subject, trace)
            except Unreachable as error:
                await waiting.pause(error)
            except Unavailable:
                if len(tried) > self._rules.retries:
                    raise

    async def _open_on(self, replica: Replica, subject: Subject | None, trace: TraceContext | None) -> ClientDuplex:
        deadline = monotonic() + CONNECT_S
        channel = await self._mesh.channel(self._caller, self._module, replica, deadline)
        if not isinstance(channel, FrameChannel):
            raise Unimplemented(
                "public HTTP to a module in another process travels in frames",
                'Set `wire = "frames"` in [mesh], or host the module with the gateway.',
            )
        proof = self._mesh.delegation.token(subject, self._module) if subject is not None else None
        duplex = channel.duplex(self._module, trace, proof)
        replica.inflight += 1
        duplex.on_closed = lambda: _release(replica)
        return duplex


def _release(replica: Replica) -> None:
    replica.inflight -= 1
