"""What a worker hosts in place of Python: Envoy, the check that it asks, and the service if it is ours to start."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seamline.deploy.sidecar.check import Check
from seamline.deploy.sidecar.children import Child, envoy_command
from seamline.deploy.sidecar.envoy import (
    Called,
    Plan,
    write_bootstrap,
    write_endpoints,
    write_nothing,
    write_roots,
    write_svid,
)
from seamline.deploy.sidecar.errors import NoContractError, ServiceSilentError, SidecarError
from seamline.deploy.sidecar.relay import Relay
from seamline.kernel.audit import AuditLog
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings import SidecarSettings, workers_environment
from seamline.kernel.signal.trace import Tracer
from seamline.mesh.identity.revocation import Revocation
from seamline.mesh.mesh import Mesh
from seamline.mesh.policy import Policy
from seamline.module.contract import compile_contract
from seamline.module.errors import Unimplemented
from seamline.run.application import Application
from seamline.run.berth import Berth
from seamline.run.control import Address, Route
from seamline.run.signals import Signals

if TYPE_CHECKING:
    from seamline.observe.records import Batch

_LOOK_S = 0.02
_START_S = 30.0
_MEMORY = Path("/dev/shm")  # noqa: S108  # a folder of our own in it, which nobody else may enter


class SidecarHosting:
    """Answers for one module with a service in another language."""

    def __init__(self, berth: Berth, *, policy: Policy | None = None) -> None:
        if berth.sidecar is None or len(berth.modules) != 1:
            raise SidecarError("a sidecar stands beside one module", "The supervisor starts it with one.")
        application = Application.load(berth.folder, only=())
        settings = application.settings
        (self._module,) = berth.modules
        self.gateway = False
        self.routes: Sequence[Route] = ()
        self.versions: Mapping[str, str] = {}
        self._sidecar: SidecarSettings = berth.sidecar
        self._settings = settings
        self._identity = berth.identity
        self._revoke = berth.revoke
        self.audit = AuditLog(berth.data / "audit" / f"{berth.workload}.jsonl")
        self._mesh = mesh = Mesh(
            settings.app.name,
            policy or application.policy(),
            settings.mesh,
            identity=berth.identity,
            audit=self.audit,
            tracer=Tracer(
                settings.telemetry.sample,
                sample_per_s=settings.telemetry.sample_per_s,
                slow_ms=settings.telemetry.slow_ms,
            ),
            clock=berth.clock,
        )
        outward: dict[str, Called] = {}
        inward: list[Called] = []
        for contract, owner in application.contracts.items():
            mesh.know(contract, owner)
            methods = compile_contract(contract).methods.values()
            if owner == self._module:
                mesh.provide(owner, contract, _Elsewhere())
                inward += [Called(spec, owner, mesh.rules_of(spec)) for spec in methods]
            else:
                outward |= {f"{m.contract}/{m.name}": Called(m, owner, mesh.rules_of(m)) for m in methods}
        if not inward:
            raise NoContractError(
                f"module {self._module!r} declares no contract in its package",
                "Declare it there: its inside is not imported where a service answers for it.",
            )
        self._signals = Signals(settings.telemetry, mesh.tracer, mesh.tracer.flows.take)
        self._called = (tuple(inward), tuple(outward.values()))
        self._check = Check(mesh, self._module, {name: (each.callee, each.spec) for name, each in outward.items()})
        self._folder = _folder_of(berth.data, berth.workload)
        self._service = self._sidecar.port or self._folder / "service.sock"
        self._relay = Relay(
            mesh.revocations, self._module, self._check.subject_of, self._service, settings.mesh.frame_bytes_max
        )
        self._plan: Plan | None = None
        self._endpoints: Mapping[str, Sequence[Address]] = {}
        self._children: list[Child] = []
        self._owner = TaskOwner("sidecar")

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        await self._check.listen(self._folder / "check.sock", loop)
        await self._relay.listen(self._folder / "streams.sock", loop)

    async def serve_mesh(self, listener: socket.socket) -> None:
        """Give the port to Envoy; returns when it serves."""
        port = int(listener.getsockname()[1])
        inward, outward = self._called
        service = self._service
        self._plan = plan = Plan(
            self._folder, self._settings.app.name, self._module, self._settings.trust_domain, port, service,
            self._settings.mesh.frame_bytes_max, inward, outward,
        )  # fmt: skip
        self._write_identity()
        self._identity.on_change.append(self._write_identity)
        self._write_endpoints()
        command = envoy_command(write_bootstrap(plan))
        environment = {
            **workers_environment(self._settings),
            "SEAMLINE_LISTEN": str(service),
            "SEAMLINE_MESH": str(plan.mesh),
            "SEAMLINE_APP": plan.app,
        }
        if self._sidecar.command:
            self._keep(Child(f"the service of {self._module}", self._sidecar.command, self._settings.folder,
                             environment, os.getpid()))  # fmt: skip
        await self._until_listening(service)
        listener.close()
        self._keep(Child(f"the sidecar of {self._module}", command, self._folder, environment, os.getpid()))
        await self._until_live()

    def _keep(self, child: Child) -> None:
        self._children.append(child)
        self._owner.spawn(child.keep(), name=child.name)

    async def _until_listening(self, service: int | Path) -> None:
        end = asyncio.get_running_loop().time() + _START_S
        while True:
            try:
                if isinstance(service, Path):
                    _, writer = await asyncio.open_unix_connection(service)
                else:
                    _, writer = await asyncio.open_connection("127.0.0.1", service)
            except OSError:
                if asyncio.get_running_loop().time() > end:
                    break
                await asyncio.sleep(_LOOK_S)
                continue
            writer.close()
            return
        where = f"port {service}" if isinstance(service, int) else "the socket SEAMLINE_LISTEN"
        raise ServiceSilentError(
            f"the service of module {self._module!r} did not listen on {where} within {_START_S:g} s",
            "Start it, or see its words in the log.",
        )

    async def _until_live(self) -> None:
        end = asyncio.get_running_loop().time() + _START_S
        while (await self._ask_envoy("GET", "/ready")) != b"LIVE\n":
            if asyncio.get_running_loop().time() > end:
                raise SidecarError(f"the sidecar of {self._module!r} is not ready", "See its words in the log.")
            await asyncio.sleep(_LOOK_S)

    async def _ask_envoy(self, method: str, path: str) -> bytes:
        """What Envoy's administration answers; nothing while it does not."""
        assert self._plan is not None
        try:
            reader, writer = await asyncio.open_unix_connection(self._plan.admin)
        except OSError:
            return b""
        try:
            writer.write(f"{method} {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n".encode())
            answer = await asyncio.wait_for(reader.read(), 5.0)
        except (OSError, TimeoutError):
            return b""
        finally:
            writer.close()
        return _body(answer)

    async def serve_public(self, listener: socket.socket, ai: socket.socket | None) -> None:
        """The gateways live elsewhere."""
        listener.close()
        if ai is not None:
            ai.close()

    # What changes.

    def _write_identity(self) -> None:
        if self._plan is None:
            return
        if self._module in self._identity.modules:
            key, mark, chain = self._identity.pem(self._module).partition(b"-----BEGIN CERTIFICATE-----")
            write_svid(self._plan, key, mark + chain)
        else:  # quarantined at the start: Envoy serves nobody until there is one
            write_nothing(self._plan, "svid")
        write_roots(self._plan, self._identity.bundle_pem)

    def set_endpoints(self, endpoints: Mapping[str, Sequence[Address]], routes: Sequence[Route]) -> None:
        del routes  # public faces are the gateway's
        self._endpoints = endpoints
        self._write_endpoints()

    def _write_endpoints(self) -> None:
        if self._plan is not None:
            for name in self._plan.callees:
                found = self._endpoints.get(name, ())
                write_endpoints(self._plan, name, [(each.host, each.port) for each in found])

    def reload_policy(self) -> None:
        self._mesh.policy.reload()
        self._mesh.refresh()

    def inject(self, rules: Mapping[str, Mapping[str, Any]]) -> None:
        self._mesh.override(rules)

    def revoke(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._mesh.revocations.apply(Revocation(**entry) for entry in entries)

    def stats(self) -> dict[str, Any]:
        children = [{"name": each.name, "pid": each.pid, "starts": each.starts} for each in self._children]
        return {**self._mesh.stats(), "sidecar": {"folder": str(self._folder), "children": children}}

    def tell(self) -> Iterable[Batch]:
        return self._signals.gather()

    def wake(self, topics: Sequence[str]) -> None:
        """A service in another language keeps no log of ours."""

    async def ask(self, room: str, operation: str, arguments: dict[str, Any]) -> Any:
        del room, operation, arguments

    # The end.

    async def drain(self, timeout_s: float) -> bool:
        """Have clients told to go with their next answer, and wait until nothing is under way."""
        await self._ask_envoy("POST", "/drain_listeners?graceful")
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while loop.time() < end:
            found = await self._ask_envoy("GET", "/stats?filter=^http\\.inward\\.downstream_rq_active$")
            if found.rpartition(b": ")[2].strip() in (b"0", b""):
                return True
            await asyncio.sleep(_LOOK_S)
        return False

    async def stop(self) -> None:
        self._signals.stop()
        for child in reversed(self._children):
            await child.stop()
        await self._owner.stop()
        await self._check.stop()
        await self._relay.stop()
        await self._mesh.stop()
        self.audit.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class _Elsewhere:
    """Stands for the service where the mesh wants a handler."""

    def __getattr__(self, name: str) -> Any:
        async def answered_elsewhere(*_: object) -> None:
            raise Unimplemented(f"{name!r} is answered by a service beside this process", "Its sidecar has the port.")

        return answered_elsewhere


def _folder_of(data: Path, workload: str) -> Path:
    """A new folder for sockets and keys: short, because the kernel takes 107 bytes; in memory, because of the keys.

    Those of processes that were killed are swept up.
    """
    parent = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    mark = hashlib.sha256(f"{data.resolve()}\n{workload}".encode()).hexdigest()[:12]
    for old in _mine(parent, mark):
        if not Path("/proc", old.name.rpartition("-")[2]).exists():
            shutil.rmtree(old, ignore_errors=True)
    folder = parent / f"seamline-{mark}-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def _mine(parent: Path, mark: str) -> Iterator[Path]:
    return (each for each in parent.glob(f"seamline-{mark}-*") if each.stat().st_uid == os.getuid())


def _body(answer: bytes) -> bytes:
    """The body of an answer, taken out of its chunks."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return body
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        whole, body = whole + rest[:length], rest[length + 2 :] if length else b""
    return whole


def host(berth: Berth) -> SidecarHosting:
    return SidecarHosting(berth)
