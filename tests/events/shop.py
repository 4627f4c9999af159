"""Modules that publish and consume, hosted as a process hosts them, for the tests of this room."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, Table, func, insert, select

from seamline import Event
from seamline.events.context import EventContext
from seamline.events.events import Events
from seamline.events.reading import log_contract
from seamline.events.runtime import EventsRuntime
from seamline.events.transport import Transport
from seamline.kernel.clock import Clock, SystemClock
from seamline.kernel.owner import process_owner
from seamline.kernel.settings import EventsSettings, MeshSettings
from seamline.kernel.signal.trace import Tracer
from seamline.kernel.store import Database, set_scope_source, sqlite_url
from seamline.mesh.balance import Endpoint
from seamline.mesh.identity import WorkloadIdentity
from seamline.mesh.identity.keyring import LocalSigners
from seamline.mesh.mesh import Mesh
from seamline.mesh.policy import Policy
from seamline.module import Module
from seamline.module.context import current
from seamline.module.contract import Contract, compile_contract
from seamline.module.wiring import Wiring

PERMIT_ALL = "permit(principal, action, resource);"


class Sold(Event, key="sku"):
    """Of module ``shop``."""

    sku: str
    number: int


class Returned(Event, key="sku"):
    """Of module ``shop``, too."""

    sku: str


OWNERS: dict[type[Event], str] = {Sold: "shop", Returned: "shop"}

metadata = MetaData()
effects = Table(
    "effects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sku", String, nullable=False),
    Column("number", Integer, nullable=False),
)
"""What handlers write: a second effect of an event would be a second row."""


class Process:
    """What hosts some modules; several of them on one folder stand for several processes."""

    def __init__(
        self,
        folder: Path,
        modules: Sequence[Module],
        *,
        clock: Clock | None = None,
        owners: Mapping[type[Event], str] = OWNERS,
        policy: str = PERMIT_ALL,
        url: Callable[[str], str] | None = None,
        sample: float = 0.0,
        identity: WorkloadIdentity | None = None,
        transport: Transport | None = None,
        app: str = "test",
        contracts: Mapping[type[Contract], str] | None = None,
        **settings: Any,
    ) -> None:
        set_scope_source(current)
        self.clock = clock or SystemClock()
        self.tracer = Tracer(sample)
        self.modules = {module.name: module for module in modules}
        contracts = contracts or {}
        names = sorted({"shop", "books", *owners.values(), *self.modules, *contracts.values()})
        methods = {each.__name__: (owner, list(compile_contract(each).methods)) for each, owner in contracts.items()}
        rules = Policy.from_text(policy, modules={name: {} for name in names}, contracts=methods)
        signers = LocalSigners(folder / "identity", "test", "test")
        self.mesh = Mesh("test", rules, MeshSettings(), tracer=self.tracer, identity=identity, signers=signers)
        for topic in set(owners.values()):
            self.mesh.know(log_contract(topic), topic)
        for contract, owner in contracts.items():
            self.mesh.know(contract, owner)
        self.announced: list[str] = []
        self.runtime = EventsRuntime(
            app, EventsSettings(**settings), self.clock, self.mesh, self.tracer, owners, self.announced.append,
            process_owner("test"), reachable=self.mesh.reachable, proofs=self.mesh.waiting,
        )  # fmt: skip
        if transport is not None:
            self.runtime.transport = transport
        self.databases = {
            name: Database(url(name) if url is not None else sqlite_url(folder, name), name, metadata)
            for name in self.modules
        }

    async def start(self) -> None:
        for module in self.modules.values():
            database = self.databases[module.name]
            await database.start()
            await database.ensure(metadata)
            self.runtime.add(module, database, Wiring(module, {}, self._platform()))
        await self.runtime.open()
        for name in self.runtime.logs:
            self.mesh.provide(name, log_contract(name), self.runtime.log_service(name))
        await self.runtime.start()

    def _platform(self) -> dict[type[Any], Callable[[Module], Any]]:
        return {
            Contract: lambda module: partial(self.mesh.stub, caller=module.name),
            Database: lambda module: self.databases[module.name],
            Events: lambda module: self.runtime.events_of(module.name),
            EventContext: lambda _: None,
            Clock: lambda _: self.clock,
        }

    async def listen(self) -> Endpoint:
        """Serve the mesh to other processes."""
        return await self.serve(self.mesh)

    @staticmethod
    async def serve(mesh: Mesh) -> Endpoint:
        listener = socket.create_server(("127.0.0.1", 0))
        await mesh.port.listen(listener)
        return Endpoint("127.0.0.1", int(listener.getsockname()[1]))

    @property
    def events(self) -> Events:
        return self.runtime.events_of("shop")

    async def stop(self) -> None:
        await self.runtime.stop()
        await self.mesh.stop()
        for database in self.databases.values():
            await database.close()

    async def rows(self, module: str = "books") -> list[tuple[str, int]]:
        """The effects so far, in their order."""
        async with self.databases[module].read() as r:
            found = await r.execute(select(effects.c.sku, effects.c.number).order_by(effects.c.id))
            return [(row.sku, row.number) for row in found]

    async def rows_are(self, expected: Sequence[tuple[str, int]], module: str = "books") -> bool:
        return await self.rows(module) == list(expected)

    async def count_is(self, expected: int, table: Table = effects) -> bool:
        return await self.count(table) == expected

    def joined(self) -> bool:
        """Whether every consumer knows where it begins."""
        return all(consumer.subscribed for consumer in self.runtime.consumers())

    def handled(self) -> int:
        """Of all consumers."""
        return sum(each["handled"] for each in self.runtime.stats()["consumers"])

    async def count(self, table: Table = effects, module: str = "books") -> int:
        async with self.databases[module].read() as r:
            return (await r.execute(select(func.count()).select_from(table))).scalar_one()


@contextlib.asynccontextmanager
async def running(folder: Path, *modules: Module, **options: Any) -> AsyncGenerator[Process]:
    process = Process(folder, modules, **options)
    try:
        await process.start()
        yield process
    finally:
        await process.stop()


async def write(db: Database, sku: str, number: int) -> None:
    async with db.transaction() as tx:
        await tx.execute(insert(effects).values(sku=sku, number=number))


async def until(condition: Callable[[], Any], *, turns: int = 4000) -> None:
    """Wait until ``condition``, which may be async, is true."""
    for _ in range(turns):
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(condition)


def shop() -> Module:
    return Module("shop")
