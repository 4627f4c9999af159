"""What a call leaves behind: counts on each side, and spans of what failed or was slow though nothing is sampled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.mesh.rig import PERMIT_ALL, WAYS, OutOfStock, Rig, StockService, connect, policy, rig

from seamline import InternalError, PermissionDenied
from seamline.kernel.signal.metrics import Flow
from seamline.kernel.signal.trace import Span, TraceContext
from seamline.mesh.identity.revocation import Revocation
from seamline.module.context import CURRENT, CallContext
from seamline.module.errors import CallError

REMOTE = ("frames", "http")


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as it:
        yield it


async def taken(made: Rig, count: int) -> dict[str, Span]:
    """So many spans by their kind; the callee's may come after the caller has its answer."""
    found: list[Span] = []
    for _ in range(4000):
        found += [span for mesh in made.meshes for span in mesh.tracer.take()]
        if len(found) >= count:
            break
        await asyncio.sleep(0)
    assert len(found) == count
    return {span.kind: span for span in found}


async def flows(made: Rig, count: int) -> dict[str, Flow]:
    """What each side has counted, by side."""
    found: dict[str, Flow] = {}
    for _ in range(4000):
        found |= {flow.side: flow for mesh in made.meshes for flow in mesh.tracer.flows.take() if flow.calls}
        if len(found) >= count:
            break
        await asyncio.sleep(0)
    return found


@pytest.mark.parametrize("way", WAYS)
async def test_a_call_that_failed_leaves_both_spans_though_nothing_is_sampled(made: Rig, way: str):
    """In one trace, with the exception where it happened; what went well, and a fault, leave nothing."""
    stock = await connect(made, way, StockService())
    await stock.take("mug")
    with pytest.raises(OutOfStock):
        await stock.fail("fault")
    with pytest.raises(InternalError):
        await stock.fail("undeclared")
    spans = await taken(made, 2)
    client, server = spans["client"], spans["server"]
    assert (client.name, client.status, client.parent_id) == ("Stock.fail", "internal", 0)
    assert (server.trace_id, server.parent_id, server.status) == (client.trace_id, client.span_id, "internal")
    assert client.attributes is not None
    assert client.attributes["rpc.method"] == "fail"
    assert ("seamline.workload" in client.attributes) == (way in REMOTE)
    assert server.events is not None
    ((_, _, said),) = server.events
    assert said is not None
    assert said["exception.type"].endswith("Hidden")
    assert said["exception.stacktrace"].splitlines()[-1].startswith("tests/mesh/rig.py:")


@pytest.mark.parametrize("way", WAYS)
async def test_a_call_that_was_slow_leaves_both_spans(made: Rig, way: str):
    """What slow is was said; where any time is, every call is."""
    stock = await connect(made, way, StockService(), slow_ms=0.0)
    await stock.take("mug")
    spans = await taken(made, 2)
    assert spans["server"].parent_id == spans["client"].span_id
    assert spans["client"].status == "ok"


@pytest.mark.parametrize("way", ["local", "copy"])
async def test_what_encloses_a_failed_call_is_recorded_with_it_and_what_follows(made: Rig, way: str):
    """Also where the failure was caught; each has the parent that it would have had in a trace recorded whole."""
    stock = await connect(made, way, StockService())
    around = CallContext("orders", "gateway", trace=TraceContext(7, 8, sampled=False), span=0)
    token = CURRENT.set(around)
    try:
        await stock.take("mug")
        with pytest.raises(InternalError):
            await stock.fail("undeclared")
        await stock.take("mug")
    finally:
        CURRENT.reset(token)
    spans = made.meshes[0].tracer.take()
    assert [span.name for span in spans if span.kind == "client"] == ["Stock.fail", "Stock.take"]
    assert {span.trace_id for span in spans} == {7}
    assert {span.parent_id for span in spans if span.kind == "client"} == {around.span_id()}


@pytest.mark.parametrize("way", REMOTE)
async def test_both_ends_of_a_remote_call_count_it(made: Rig, way: str):
    """Calls, failures by code and how long they took; the caller's share is the longer. Taken once."""
    stock = await connect(made, way, StockService())
    await stock.dawdle(0.01)
    first = await flows(made, 2)
    assert {side: (flow.caller, flow.callee, flow.method, flow.calls) for side, flow in first.items()} == {
        "client": ("orders", "stock", "Stock.dawdle", 1), "server": ("orders", "stock", "Stock.dawdle", 1),
    }  # fmt: skip
    assert first["client"].sum_ns >= first["server"].sum_ns >= 10_000_000
    assert sum(first["server"].histogram.values()) == 1
    with pytest.raises(InternalError):
        await stock.fail("undeclared")
    for flow in (await flows(made, 2)).values():
        assert (flow.calls, flow.errors, flow.codes) == (1, 1, {"internal": 1})
    with pytest.raises(OutOfStock):
        await stock.fail("fault")
    for flow in (await flows(made, 2)).values():
        assert (flow.calls, flow.errors, flow.codes) == (1, 0, {})
    assert await flows(made, 0) == {}


async def test_a_call_that_policy_refuses_is_counted_at_the_caller(made: Rig):
    """Though nothing was called."""
    stock = await connect(made, "local", StockService(), text="permit(principal, action, resource) when { false };")
    with pytest.raises(PermissionDenied):
        await stock.take("mug")
    (flow,) = made.meshes[0].tracer.flows.take()
    assert (flow.calls, flow.errors, flow.codes) == (1, 1, {"permission_denied": 1})


@pytest.mark.parametrize("way", REMOTE)
async def test_what_a_callee_remembers_of_a_caller_ends_with_any_change(made: Rig, way: str):
    """Another policy, the same one read again, a module set apart for a time, a service withdrawn: the next call
    on the connection that is open hears of it."""
    stock = await connect(made, way, StockService())
    server = made.meshes[0]
    refuse = "forbid(principal, action, resource);"
    await stock.take("mug")
    server.policy = policy(PERMIT_ALL + refuse)
    with pytest.raises(PermissionDenied):
        await stock.take("mug")
    server.policy = policy()
    await stock.take("mug")
    server.revocations.apply([Revocation("module", "orders", reason="drill")])
    with pytest.raises(CallError):
        await stock.take("mug")
    server.revocations.apply([Revocation("module", "orders", lifted=True)])
    for _ in range(100):  # the connection was cut with the quarantine, and is made anew
        try:
            await stock.take("mug")
            break
        except CallError:
            await asyncio.sleep(0)
    server.withdraw("stock")
    with pytest.raises(CallError):
        await stock.take("mug")
