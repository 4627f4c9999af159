"""Spans are the same whether caller and callee share a process or speak over either wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.mesh.rig import WAYS, OutOfStock, Rig, Stock, StockService, connect, rig

from seamline import DeadlineExceeded, InternalError
from seamline.kernel.signal.trace import Span, TraceContext
from seamline.module.context import CURRENT, CallContext

pytestmark = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as it:
        yield it


class Seen(NamedTuple):
    """A span without what differs from call to call; ``depth`` 0 has no parent."""

    depth: int
    kind: str
    name: str
    module: str
    peer: str
    status: str


def taken(made: Rig) -> list[Span]:
    return [span for mesh in made.meshes for span in mesh.tracer.take()]


def shape(spans: list[Span]) -> list[Seen]:
    """The one trace among ``spans``, parents first; every parent is a span that was recorded."""
    assert len({span.trace_id for span in spans}) == 1
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)

    def depth(span: Span) -> int:
        return 0 if span.parent_id == 0 else 1 + depth(by_id[span.parent_id])

    found = [Seen(depth(s), s.kind, s.name, s.module, s.peer, s.status) for s in spans]
    return sorted(found)


def both(name: str, status: str) -> list[Seen]:
    return [
        Seen(0, "client", name, "orders", "stock", status),
        Seen(1, "server", name, "stock", "orders", status),
    ]


async def test_a_call_has_a_client_and_a_server_span(made: Rig, way: str):
    """The server's span is the child of the client's, which has no parent."""
    stock = await connect(made, way, StockService(), sample=1.0)
    assert await stock.take("mug") == "mugx1"
    spans = taken(made)
    assert shape(spans) == both("Stock.take", "ok")
    client, server = sorted(spans, key=lambda span: span.kind)
    assert client.duration_ns >= server.duration_ns >= 0


async def test_faults_are_outcomes_and_errors_have_their_code(made: Rig, way: str):
    """A declared fault is not a failed call; an undeclared one is, on both sides."""
    stock = await connect(made, way, StockService(), sample=1.0)
    with pytest.raises(OutOfStock):
        await stock.fail("fault")
    assert shape(taken(made)) == both("Stock.fail", "ok")
    with pytest.raises(InternalError):
        await stock.fail("undeclared")
    assert shape(taken(made)) == both("Stock.fail", "internal")


async def test_streams_have_spans_as_calls_have(made: Rig, way: str):
    """To the end, and into a fault in the middle."""
    stock = await connect(made, way, StockService(), sample=1.0)
    assert [n async for n in stock.count(3)] == [0, 1, 2]
    assert shape(taken(made)) == both("Stock.count", "ok")
    with pytest.raises(OutOfStock):
        [n async for n in stock.count(3, fail_at=1)]
    assert shape(taken(made)) == both("Stock.count", "ok")

    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    assert await stock.total(1, numbers()) == 4
    assert shape(taken(made)) == both("Stock.total", "ok")


async def test_a_call_within_a_call_continues_its_trace(made: Rig, way: str):
    """The span of the call under way is the parent, and its decision to sample holds, whatever the lot says."""
    stock = await connect(made, way, StockService(), sample=0.0)
    token = CURRENT.set(CallContext("orders", "gateway", trace=TraceContext(7, 8, sampled=True)))
    try:
        await stock.take("mug")
    finally:
        CURRENT.reset(token)
    spans = taken(made)
    assert {span.trace_id for span in spans} == {7}
    client, server = sorted(spans, key=lambda span: span.kind)
    assert (client.parent_id, server.parent_id) == (8, client.span_id)


async def test_what_was_not_sampled_at_its_head_is_not_sampled_below(made: Rig, way: str):
    """A server whose own lot would always fall on a call records nothing of one that its caller left out."""
    stock = await connect(made, way, StockService(), sample=1.0)
    made.meshes[-1].tracer.sample = 0.0
    await stock.take("mug")
    assert [n async for n in stock.count(2)] == [0, 1]
    token = CURRENT.set(CallContext("orders", "gateway"))
    made.meshes[-1].tracer.sample = 1.0
    try:
        await stock.take("mug")
    finally:
        CURRENT.reset(token)
    assert taken(made) == []


async def test_the_lot_is_cast_once_for_each_trace(made: Rig, way: str):
    """With a share of three in ten, three in ten calls have both their spans; none has one."""
    stock = await connect(made, way, StockService(), sample=0.3)
    for _ in range(300):
        await stock.take("mug")
    spans = taken(made)
    traces: dict[int, list[Span]] = {}
    for span in spans:
        traces.setdefault(span.trace_id, []).append(span)
    assert all(shape(found) == both("Stock.take", "ok") for found in traces.values())
    assert 50 <= len(traces) <= 135


async def test_a_call_that_ran_out_of_time_says_so(made: Rig, way: str):
    """The caller's span carries the code of its error."""
    stock: Stock = await connect(made, way, StockService(), sample=1.0)
    with pytest.raises(DeadlineExceeded):
        await stock.dawdle(30)
    (client,) = [span for span in taken(made) if span.kind == "client"]
    assert (client.status, client.parent_id) == ("deadline_exceeded", 0)
