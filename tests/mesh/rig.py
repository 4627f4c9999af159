"""Two modules and the mesh between them, in every way that they can stand to each other."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from seamline import Contract, Fault, idempotent, readonly, timeout
from seamline.kernel.audit import AuditLog
from seamline.kernel.settings import MeshRules, MeshSettings
from seamline.kernel.signal.trace import Tracer
from seamline.mesh.balance import Endpoint
from seamline.mesh.identity import CertificateAuthority, WorkloadIdentity, new_key_and_csr
from seamline.mesh.identity.keyring import PublicKeys
from seamline.mesh.mesh import Mesh
from seamline.mesh.policy import Policy
from seamline.module import compile_contract
from seamline.module.context import current

TRUST_DOMAIN, APP = "test.local", "shop"


class OutOfStock(Fault):
    """Not enough of it is left."""

    sku: str
    left: int = 0


@dataclasses.dataclass
class Basket:
    lines: list[str]


class Stock(Contract):
    """What the tests call."""

    async def take(self, sku: str, count: int = 1) -> str: ...

    @idempotent
    async def put(self, sku: str) -> int: ...

    @readonly
    async def look(self, sku: str) -> str: ...

    @timeout(0.2)
    async def dawdle(self, seconds: float) -> str: ...

    async def grow(self, basket: Basket) -> Basket: ...

    async def fail(self, how: str) -> None: ...

    def count(self, upto: int, fail_at: int = -1) -> AsyncIterator[int]: ...

    async def total(self, start: int, items: AsyncIterator[int]) -> int: ...

    def double(self, items: AsyncIterator[int]) -> AsyncIterator[int]: ...

    async def blob(self, data: bytes) -> bytes: ...

    async def nested(self, budget_s: float) -> float: ...


class StockService(Stock):
    """Counts what happens to it."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.calls: dict[str, int] = {}
        self.produced = 0
        self.closed = 0
        self.cancelled = 0
        self.gate: asyncio.Event | None = None
        self.failing: Callable[[str], BaseException | None] = lambda _: None
        self.slow_s = 0.0

    async def _enter(self, method: str) -> None:
        self.calls[method] = self.calls.get(method, 0) + 1
        error = self.failing(method)
        if error is not None:
            raise error
        if self.gate is not None:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if self.slow_s:
            await asyncio.sleep(self.slow_s)

    async def take(self, sku: str, count: int = 1) -> str:
        await self._enter("take")
        return f"{sku}x{count}{self.name}"

    async def put(self, sku: str) -> int:
        await self._enter("put")
        return self.calls["put"]

    async def look(self, sku: str) -> str:
        await self._enter("look")
        return f"{sku}{self.name}"

    async def dawdle(self, seconds: float) -> str:
        self.calls["dawdle"] = self.calls.get("dawdle", 0) + 1
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "done"

    async def grow(self, basket: Basket) -> Basket:
        basket.lines.append("grown")
        return basket

    async def fail(self, how: str) -> None:
        if how == "fault":
            raise OutOfStock(sku="mug", left=2)
        if how == "undeclared":
            raise HIDDEN[0](reason="secret")
        if how == "nested":
            raise TimeoutError
        message = f"secret detail {how}"
        raise KeyError(message)

    async def count(self, upto: int, fail_at: int = -1) -> AsyncIterator[int]:
        try:
            for number in range(upto):
                if number == fail_at:
                    raise OutOfStock(sku=str(number))
                self.produced += 1
                yield number
        finally:
            self.closed += 1

    async def total(self, start: int, items: AsyncIterator[int]) -> int:
        async for item in items:
            start += item
        return start

    async def double(self, items: AsyncIterator[int]) -> AsyncIterator[int]:
        await self._enter("double")
        async for item in items:
            yield item * 2

    async def blob(self, data: bytes) -> bytes:
        return data[::-1]

    async def nested(self, budget_s: float) -> float:
        context = current()
        assert context is not None
        return context.deadline


def _hidden() -> type[Any]:
    class Hidden(Fault):
        """Not declared by the contract."""

        reason: str

    return Hidden


HIDDEN = [_hidden()]
"""In a list, so that it does not stand in the contract's namespace, which would declare it."""

PERMIT_ALL = "permit(principal, action, resource);"


def policy(text: str = PERMIT_ALL) -> Policy:
    methods = list(compile_contract(Stock).methods)
    return Policy.from_text(
        text, modules={"orders": {}, "stock": {}, "stranger": {}}, contracts={"Stock": ("stock", methods)}
    )


class Rig:
    """Meshes of one application on one machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = CertificateAuthority.load_or_create(folder / "ca", TRUST_DOMAIN, APP)
        self.meshes: list[Mesh] = []
        self.keys = PublicKeys()

    def identity(self, *modules: str, authority: CertificateAuthority | None = None) -> WorkloadIdentity:
        """An identity with certificates of ``authority``, trusting the rig's own."""
        source = authority or self.authority
        identity = WorkloadIdentity(source.trust_domain, source.app)
        identity.keys = self.keys
        identity.set_bundle(source.bundle_pem)
        for module in modules:
            key, request = new_key_and_csr()
            identity.install(module, key, source.issue(request, module, 3600))
        return identity

    def mesh(
        self, *modules: str, rules: Mapping[str, Any] | None = None, text: str = PERMIT_ALL, copies: bool = False,
        remote: bool = True, sample: float = 0.0, slow_ms: float = 1000.0, **connection: Any,
    ) -> Mesh:  # fmt: skip
        settings = MeshSettings(default=MeshRules(**(rules or {})), **connection)
        mesh = Mesh(
            APP, policy(text), settings, identity=self.identity(*modules) if remote else None,
            audit=AuditLog(self.folder / f"audit-{len(self.meshes)}.jsonl"), tracer=Tracer(sample, slow_ms=slow_ms),
            copies=copies,
        )  # fmt: skip
        mesh.know(Stock, "stock")
        self.meshes.append(mesh)
        return mesh

    async def serve(self, service: StockService, **options: Any) -> tuple[Mesh, Endpoint]:
        """A process that hosts ``stock``, and where it listens."""
        mesh = self.mesh("stock", **options)
        mesh.provide("stock", Stock, service)
        listener = socket.create_server(("127.0.0.1", 0))
        await mesh.port.listen(listener)
        return mesh, Endpoint("127.0.0.1", listener.getsockname()[1], workload=service.name, version=service.name)

    async def stop(self) -> None:
        for mesh in self.meshes:
            await mesh.stop()
            if mesh.audit is not None:
                mesh.audit.close()


@contextlib.asynccontextmanager
async def rig(folder: Path) -> AsyncGenerator[Rig]:
    made = Rig(folder)
    try:
        yield made
    finally:
        await made.stop()


WAYS = ("local", "copy", "frames", "http")


async def connect(made: Rig, way: str, service: StockService, caller: str = "orders", **options: Any) -> Stock:
    """A stub of ``Stock`` held by ``caller``, with the service standing in the given way to it."""
    if way in ("local", "copy"):
        mesh = made.mesh(remote=False, copies=way == "copy", **options)
        mesh.provide("stock", Stock, service)
        return mesh.stub(Stock, caller)
    _, endpoint = await made.serve(service, **options)
    client = made.mesh(caller, wire=way, **options)
    client.set_endpoints({"stock": [endpoint]})
    return client.stub(Stock, caller)
