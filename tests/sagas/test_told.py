"""What a saga leaves behind: counts of its steps, and spans from the first one on that failed."""

from __future__ import annotations

import pytest
from tests.sagas.rig import hosting

from seamline.kernel.signal.trace import Tracer
from seamline.kernel.store import Database
from seamline.module import Module
from seamline.sagas import Saga, StepFailed

told = Module("shop")


async def reserve(what: str) -> str:
    return what


async def release(what: str) -> None:
    assert what


async def pay() -> None:
    raise LookupError("no such card")


@told.saga
async def buys(s: Saga, good: bool) -> None:
    await s.step(reserve, "mug", undo=release)
    if not good:
        await s.step(pay, attempts=1)


async def test_a_failed_step_has_the_rest_of_its_saga_recorded(db: Database):
    """Itself, what took back the steps before it, and the saga, of which all are children; one that went well leaves
    only counts."""
    tracer = Tracer(0.0)
    async with hosting(told, db, tracer=tracer) as host:
        await (await host.sagas.start(buys, True)).result(20)
        assert tracer.take() == []
        with pytest.raises(StepFailed):
            await (await host.sagas.start(buys, False)).result(20)
    spans = {span.name: span for span in tracer.take()}
    assert set(spans) == {"step pay", "undo reserve", "saga buys"}
    whole = spans["saga buys"]
    assert {span.parent_id for span in spans.values() if span is not whole} == {whole.span_id}
    assert (spans["step pay"].status, whole.status, spans["undo reserve"].status) == ("internal", "aborted", "ok")
    assert spans["step pay"].events is not None
    counted = {flow.method: (flow.calls, flow.errors) for flow in tracer.flows.take() if flow.side == "saga"}
    assert counted == {
        "saga buys": (2, 0), "saga buys/step reserve": (2, 0), "saga buys/step pay": (1, 1),
        "saga buys/undo reserve": (1, 0),
    }  # fmt: skip
