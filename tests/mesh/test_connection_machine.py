"""Any order of calls, items, credit, cancellations and stalls between both ends of a frame connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.mesh.rig import Stock, policy

from seamline.kernel.codec import codec
from seamline.kernel.lifetime import Runners
from seamline.kernel.settings import MeshRules, MeshSettings
from seamline.kernel.signal.trace import Tracer
from seamline.kernel.wire.frames import Ahead
from seamline.mesh.connection import ClientConnection
from seamline.mesh.mesh import Mesh
from seamline.mesh.refusals import Quiet
from seamline.mesh.server import FrameServerConnection
from seamline.module import compile_contract
from seamline.module.context import CallContext

CREDIT = 256
SPECS = compile_contract(Stock).methods
SECONDS = st.integers(0, 4000).map(float)


class Pipe(asyncio.Transport):
    """One direction of a connection in memory. Nothing moves but when the test says so."""

    HIGH = 2000

    def __init__(self, owner: asyncio.Protocol) -> None:
        super().__init__()
        self.owner = owner
        self.buffer = bytearray()
        self.peer: Pipe
        self.reading = True
        self.paused = False
        self.ended = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self.ended:
            return
        self.buffer += data
        if len(self.buffer) > self.HIGH and not self.paused:
            self.paused = True
            self.owner.pause_writing()

    def deliver(self, size: int) -> int:
        """Let at most ``size`` bytes through to the other end; how many went."""
        if not self.peer.reading or not self.buffer:
            return 0
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        self.peer.owner.data_received(data)
        if self.paused and len(self.buffer) < self.HIGH / 2 and not self.ended:
            self.paused = False
            self.owner.resume_writing()
        return len(data)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        for end in (self, self.peer):
            if not end.ended:
                end.ended = True
                asyncio.get_running_loop().call_soon(end.owner.connection_lost, None)


class Gated(Stock):
    """Handlers that go on when the test says so."""

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}

    async def take(self, sku: str, count: int = 1) -> str:
        await self.gates.setdefault(sku, asyncio.Event()).wait()
        return sku * count

    async def count(self, upto: int, fail_at: int = -1) -> AsyncIterator[int]:
        for number in range(upto):
            yield number

    async def total(self, start: int, items: AsyncIterator[int]) -> int:
        async for item in items:
            start += item
        return start

    async def double(self, items: AsyncIterator[int]) -> AsyncIterator[int]:
        async for item in items:
            yield item * 2


class Side:
    """What a port gives its connections."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.runners = Runners()
        self.connections: set[FrameServerConnection] = set()
        self.draining = False
        self.quiet = Quiet()

    def has_work(self) -> None:
        """Nobody is told."""


async def numbers(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield str(number).encode()


class ConnectionMachine(RuleBasedStateMachine):
    """Both ends, a wire that moves by hand, and what each call must answer."""

    mesh: Mesh
    side: Side
    server: FrameServerConnection
    client: ClientConnection
    up: Pipe
    down: Pipe

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.expected: dict[asyncio.Task[Any], Any] = {}
        self.closed: list[str] = []
        self.loads: list[tuple[int, Ahead | None]] = []
        self.told: list[tuple[int, Ahead | None]] = []
        self.service = Gated()
        self.number = 0

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.runner.run(coroutine)

    @initialize()
    def connect(self) -> None:
        async def connect() -> None:
            rules = MeshRules(timeout_s=600)
            self.mesh = Mesh(
                "shop", policy(), MeshSettings(default=rules, stream_credit_bytes=CREDIT), tracer=Tracer(0)
            )
            self.mesh.provide("stock", Stock, self.service)
            self.side = Side(self.mesh)
            self.server = FrameServerConnection(self.side, "orders")
            self.client = ClientConnection(
                "stock", payload_bytes_max=100_000, credit=CREDIT, keepalive_s=3600, inflight_max=4096,
                on_closed=lambda c: self.closed.append("closed" if c.closed else "draining"),
                on_load=lambda _, under_way, ahead: self.loads.append((under_way, ahead)),
            )  # fmt: skip
            self.up, self.down = Pipe(self.client), Pipe(self.server)
            self.up.peer, self.down.peer = self.down, self.up
            self.client.connection_made(self.up)
            self.server.connection_made(self.down)

        self.run(connect())

    def begin(self, coroutine: Coroutine[Any, Any, Any], expected: Any) -> None:
        async def begin() -> None:
            task = asyncio.get_running_loop().create_task(coroutine)
            self.expected[task] = expected
            await asyncio.sleep(0)

        self.run(begin())

    def context(self) -> CallContext:
        return CallContext("stock", "orders", "", asyncio.get_running_loop().time() + 600)

    @rule(times=st.integers(1, 900))
    def call(self, times: int) -> None:
        self.number += 1
        sku = f"s{self.number}"

        async def call() -> Any:
            body = SPECS["take"].encode_request((sku, times))
            data = await self.client.unary(SPECS["take"], {}, body, self.context(), None)
            return codec(str).decode(data)

        self.begin(call(), sku * times)

    @rule(count=st.integers(0, 120))
    def download(self, count: int) -> None:
        async def call() -> Any:
            body = SPECS["count"].encode_request((count, -1))
            return [int(d) async for d in self.client.stream(SPECS["count"], {}, body, self.context(), None)]

        self.begin(call(), list(range(count)))

    @rule(count=st.integers(0, 120))
    def upload(self, count: int) -> None:
        async def call() -> Any:
            body = SPECS["total"].encode_request((1,))
            return int(await self.client.unary(SPECS["total"], {}, body, self.context(), numbers(count)))

        self.begin(call(), 1 + sum(range(count)))

    @rule(count=st.integers(0, 120))
    def both_ways(self, count: int) -> None:
        async def call() -> Any:
            stream = self.client.stream(SPECS["double"], {}, b"{}", self.context(), numbers(count))
            return [int(d) async for d in stream]

        self.begin(call(), [n * 2 for n in range(count)])

    @rule(under_way=st.integers(0, 2**32 - 1), ahead=st.none() | st.builds(Ahead, SECONDS, SECONDS, SECONDS))
    def load(self, under_way: int, ahead: Ahead | None) -> None:
        async def tell() -> None:
            self.server.tell_load(under_way, ahead)
            self.told.append((under_way, ahead if under_way else None))

        self.run(tell())

    @invariant()
    def loads_come_as_they_were_told(self) -> None:
        assert self.loads == self.told[: len(self.loads)]

    @rule(upwards=st.booleans(), size=st.sampled_from([1, 5, 9, 40, 300, 5000]))
    def move(self, upwards: bool, size: int) -> None:
        async def move() -> None:
            (self.up if upwards else self.down).deliver(size)
            await asyncio.sleep(0)

        self.run(move())

    @precondition(lambda self: self.service.gates)
    @rule(data=st.data())
    def let_a_handler_go_on(self, data: st.DataObject) -> None:
        gate = self.service.gates[data.draw(st.sampled_from(sorted(self.service.gates)))]

        async def go_on() -> None:
            gate.set()
            await asyncio.sleep(0)

        self.run(go_on())

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        task = list(self.expected)[data.draw(st.integers(0, len(self.expected) - 1))]
        del self.expected[task]

        async def cancel() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.run(cancel())

    def teardown(self) -> None:
        """All that moves moves on: every call has its answer, both ends are empty, places are free, none runs."""
        try:
            self.run(self.settle())
        finally:
            self.runner.close()

    async def settle(self) -> None:
        idle = 0
        while idle < 20:
            for gate in self.service.gates.values():
                gate.set()
            moved = self.up.deliver(10_000) + self.down.deliver(10_000)
            await asyncio.sleep(0)
            idle = 0 if moved else idle + 1
        assert not self.up.ended
        for task, expected in self.expected.items():
            assert task.done(), "a call was left without an answer"
            assert task.result() == expected
        assert self.client.inflight == 0
        assert self.server.inflight == 0
        entries = self.mesh.services.entries.values()
        assert all(entry.limit.inflight == 0 for entry in entries if entry.limit is not None)
        self.client.drain()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert self.closed == ["draining", "closed"]
        assert not self.side.connections
        await self.side.runners.stop()
        await self.mesh.stop()
        others = asyncio.all_tasks() - {cast("asyncio.Task[Any]", asyncio.current_task())}
        assert not others


TestConnection = ConnectionMachine.TestCase
TestConnection.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
