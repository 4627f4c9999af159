"""An application that knows only OpenTelemetry's API finds the platform behind it, in one process and over wires."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import opentelemetry._logs._internal as logs_api
import opentelemetry.metrics._internal as metrics_api
import pytest
from opentelemetry import _logs, baggage, context, metrics, propagate, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util._once import Once
from tests.mesh.rig import WAYS, Rig, Stock, StockService, connect, rig

from seamline import InternalError
from seamline.kernel.signal import here, log
from seamline.kernel.signal.measures import Measure
from seamline.kernel.signal.trace import Span, TraceContext, Tracer
from seamline.module.context import CURRENT, CallContext, call_as_a_whole, current, under
from seamline.run.otel import OpenTelemetry
from seamline.run.otel.metrics import SERIES_MAX

Work = Callable[[Stock], Awaitable[None]]


class Doing(StockService):
    """``look`` does what a test wants, and may call ``take`` on the way."""

    stock: Stock
    work: Work
    seen: list[bool]

    async def count(self, upto: int, fail_at: int = -1) -> AsyncIterator[int]:
        with trace.get_tracer("shop").start_as_current_span("counting") as span:
            for number in range(upto):
                self.seen.append(trace.get_current_span() is span)
                yield number

    async def look(self, sku: str) -> str:
        await self.work(self.stock)
        return sku


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenTelemetry]:
    """OpenTelemetry's API as it is when nobody has chosen a provider, and not joined yet."""
    for module, once, provider in (
        (trace, "_TRACER_PROVIDER_SET_ONCE", "_TRACER_PROVIDER"),
        (metrics_api, "_METER_PROVIDER_SET_ONCE", "_METER_PROVIDER"),
        (logs_api, "_LOGGER_PROVIDER_SET_ONCE", "_LOGGER_PROVIDER"),
    ):
        monkeypatch.setattr(module, once, Once())
        monkeypatch.setattr(module, provider, None)
    proxy: Any = vars(metrics_api)["_ProxyMeterProvider"]
    monkeypatch.setattr(metrics_api, "_PROXY_METER_PROVIDER", proxy())
    monkeypatch.setattr(context, "_RUNTIME_CONTEXT", vars(context)["_RUNTIME_CONTEXT"])
    here.set_source(current, under)
    yield OpenTelemetry()
    here.set_source(lambda: None)


class Scene:
    """A call of ``look`` with what happens inside it."""

    def __init__(self, made: Rig, joined: OpenTelemetry, way: str) -> None:
        self.made = made
        self.joined = joined
        self.way = way

    async def play(self, work: Work, *, sample: float = 1.0) -> list[Span]:
        service = Doing()
        service.work = work
        service.stock = await connect(self.made, self.way, service, sample=sample)
        self.joined.join(self.made.meshes[0].tracer)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.made.meshes[0].tracer, "sample", sample)
            await service.stock.look("mug")
        return self.taken()

    def taken(self) -> list[Span]:
        return [span for mesh in self.made.meshes for span in mesh.tracer.take()]


@pytest.fixture(params=WAYS)
async def scene(tmp_path: Path, joined: OpenTelemetry, request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    async with rig(tmp_path) as made:
        yield Scene(made, joined, request.param)


def one(spans: list[Span], name: str, kind: str | None = None) -> Span:
    (found,) = [span for span in spans if span.name == name and kind in (None, span.kind)]
    return found


async def test_a_users_span_stands_between_the_call_and_the_calls_made_in_it(scene: Scene):
    """Child of the server's span, parent of the client's; the next call after it is the server's child again."""

    async def work(stock: Stock) -> None:
        with trace.get_tracer("shop.pricing", "1.0").start_as_current_span("price") as span:
            assert span.is_recording()
            with trace.get_tracer("shop.pricing").start_as_current_span("discount"):
                await stock.take("a")
        await stock.put("b")

    spans = await scene.play(work)
    assert len({span.trace_id for span in spans}) == 1
    served, price, discount = one(spans, "Stock.look", "server"), one(spans, "price"), one(spans, "discount")
    assert price.parent_id == served.span_id
    assert discount.parent_id == price.span_id
    assert one(spans, "Stock.take", "client").parent_id == discount.span_id
    assert one(spans, "Stock.take", "server").parent_id == one(spans, "Stock.take", "client").span_id
    assert one(spans, "Stock.put", "client").parent_id == served.span_id
    assert (price.kind, price.module, price.status) == ("internal", "stock", "ok")
    assert (price.attributes or {})["otel.scope.name"] == "shop.pricing"
    assert price.start_ns <= discount.start_ns
    assert price.duration_ns >= discount.duration_ns > 0


async def test_the_current_span_is_the_calls_own(scene: Scene):
    """What a library adds to it stands on the server's span: attributes, events, links, exceptions, a status."""
    link = SpanContext(0xABC, 0xDEF, is_remote=True)

    async def work(stock: Stock) -> None:
        span = trace.get_current_span()
        span.set_attribute("cart.size", 3)
        span.add_event("checked", {"by": "hand"})
        span.add_link(link)
        try:
            int("mug")
        except ValueError as error:
            span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, "half of it"))
        span.end()
        await stock.take("a")
        assert trace.get_current_span().get_span_context() == span.get_span_context()

    spans = await scene.play(work)
    served = one(spans, "Stock.look", "server")
    attributes = served.attributes or {}
    assert attributes["cart.size"] == 3
    assert (attributes["otel.status_code"], attributes["otel.status_description"]) == ("ERROR", "half of it")
    assert [(name, given) for _, name, given in served.events or ()][:1] == [("checked", {"by": "hand"})]
    (_, _, told) = next(event for event in served.events or () if event[1] == "exception")
    assert told is not None
    assert (told["exception.type"], told["exception.message"]) == (
        "ValueError",
        "invalid literal for int() with base 10: 'mug'",
    )
    assert "test_otel.py" in told["exception.stacktrace"]
    assert (0xABC, 0xDEF) in (served.links or ())
    assert "cart.size" not in (one(spans, "Stock.take", "server").attributes or {})


async def test_in_a_trace_that_is_not_recorded_nothing_is(scene: Scene):
    """The ids are there all the same, to be passed on, and say that nobody records."""
    seen: list[Any] = []

    async def work(stock: Stock) -> None:
        with trace.get_tracer("shop").start_as_current_span("price") as span:
            span.set_attribute("a", 1)
            seen.append(span.is_recording())
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            seen.append(carrier["traceparent"])
            await stock.take("a")

    assert await scene.play(work, sample=0.0) == []
    recording, traceparent = seen
    assert not recording
    assert traceparent.endswith("-00")
    assert int(traceparent[3:35], 16) != 0


async def test_who_asks_others_gives_our_traceparent_and_who_is_asked_goes_on_with_theirs(scene: Scene):
    """``inject`` writes the span at work; a span under ``extract`` belongs to the stranger's trace."""
    seen: list[dict[str, str]] = []

    async def work(_: Stock) -> None:
        tracer = trace.get_tracer("shop")
        with tracer.start_as_current_span("ask", kind=SpanKind.CLIENT):
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            seen.append(carrier)
        theirs = propagate.extract({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
        with tracer.start_as_current_span("answer", context=theirs, kind=SpanKind.SERVER):
            pass

    spans = await scene.play(work)
    ask, answer = one(spans, "ask"), one(spans, "answer")
    assert seen == [{"traceparent": f"00-{ask.trace_id:032x}-{ask.span_id:016x}-01"}]
    assert (ask.kind, answer.kind) == ("client", "server")
    assert (answer.trace_id, answer.parent_id) == (int("a" * 32, 16), int("b" * 16, 16))


async def test_an_exception_marks_the_users_span_and_goes_on(scene: Scene):
    """As the API promises; the call fails as it would have without the span."""
    failed: list[Span] = []

    async def work(_: Stock) -> None:
        with trace.get_tracer("shop").start_as_current_span("price"):
            raise ValueError("too dear")

    with pytest.raises(InternalError):
        await scene.play(work)
    failed += scene.taken()
    price = one(failed, "price")
    assert (price.status, price.message) == ("unknown", "ValueError: too dear")
    assert [name for _, name, _ in price.events or ()] == ["exception"]
    assert one(failed, "Stock.look", "server").status == "internal"


async def test_parallel_tasks_of_a_call_do_not_see_each_others_spans(scene: Scene):
    """Each has its own current span, and its calls are the children of that one."""

    async def branch(stock: Stock, name: str) -> None:
        with trace.get_tracer("shop").start_as_current_span(name):
            await asyncio.sleep(0)
            await stock.take(name)
            await asyncio.sleep(0)
            await stock.take(name)

    async def work(stock: Stock) -> None:
        await asyncio.gather(*(branch(stock, name) for name in "abc"))
        await stock.put("after")

    spans = await scene.play(work)
    served = one(spans, "Stock.look", "server")
    for name in "abc":
        span = one(spans, name)
        assert span.parent_id == served.span_id
        assert len([each for each in spans if each.kind == "client" and each.parent_id == span.span_id]) == 2
    assert one(spans, "Stock.put", "client").parent_id == served.span_id


async def test_what_a_user_gives_is_bounded(scene: Scene):
    """Hundreds of attributes, megabytes, things that cannot be shown: cut, and never an error."""

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    async def work(_: Stock) -> None:
        with trace.get_tracer("shop").start_as_current_span("price") as span:
            for number in range(1_000):
                span.set_attribute(f"a{number}", "x" * 100_000)
                span.add_event("again", {"n": number})
                span.add_link(SpanContext(1, number + 1, is_remote=False))
            span.set_attribute("a0", Broken())  # pyright: ignore[reportArgumentType]
            span.set_attribute("a1", [1, "two", b"\xff", {"deep": [[[[[[1]]]]]]}, 2**80])

    price = one(await scene.play(work), "price")
    attributes = price.attributes or {}
    assert len(attributes) <= 128
    assert max(len(repr(value)) for value in attributes.values()) < 10_000
    assert attributes["a0"] == "<Broken>"
    assert attributes["a1"][:3] == [1, "two", b"\xff"]
    assert len(price.events or ()) == len(price.links or ()) == 128


async def test_a_span_lasts_over_the_items_of_a_stream(scene: Scene, caplog: pytest.LogCaptureFixture):
    """It is current whenever the handler goes on, is told once, and leaves nothing behind it."""
    service = Doing()
    service.seen = []
    stock = await connect(scene.made, scene.way, service, sample=1.0)
    scene.joined.join(scene.made.meshes[0].tracer)
    assert [number async for number in stock.count(3)] == [0, 1, 2]
    assert not trace.get_current_span().get_span_context().is_valid
    spans = scene.taken()
    assert one(spans, "counting").parent_id == one(spans, "Stock.count", "server").span_id
    assert service.seen == [True, True, True]
    assert not [record for record in caplog.records if "detach" in record.message]


async def test_spans_by_hand(scene: Scene):
    """Begun and ended by the user, with times, links, a name and a status of their own; ended twice counts once."""

    async def work(_: Stock) -> None:
        link = Link(SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1)), {"why": "retry"})
        span = trace.get_tracer("shop").start_span("draft", start_time=1_000, links=[link], attributes={"a": 1})
        span.update_name("final")
        span.set_status(StatusCode.OK)
        span.set_status(StatusCode.ERROR, "too late")
        span.end(3_500)
        span.set_attribute("b", 2)
        span.end()
        assert not span.is_recording()

    span = one(await scene.play(work), "final")
    assert (span.start_ns, span.duration_ns, span.status, span.links) == (1_000, 2_500, "ok", [(7, 8)])
    assert span.attributes == {"a": 1, "otel.scope.name": "shop"}


async def test_baggage_and_other_values_stay_in_the_context(scene: Scene):
    """The platform's span takes the place of the span only."""
    seen: list[object] = []

    async def work(_: Stock) -> None:
        token = context.attach(baggage.set_baggage("tenant", "t-1"))
        with trace.get_tracer("shop").start_as_current_span("price"):
            seen.append(baggage.get_baggage("tenant"))
        context.detach(token)
        seen.append(baggage.get_baggage("tenant"))

    await scene.play(work)
    assert seen == ["t-1", None]


async def test_a_span_does_not_end_the_calls_unit_of_work():
    """A transaction that was begun before a span goes on inside it: the call is the same."""
    call = CallContext("stock", "orders", trace=TraceContext(1, 2, True), span=3)
    token = CURRENT.set(call)
    try:
        assert call_as_a_whole() is call
        with under(TraceContext(1, 4, True)), under(TraceContext(1, 5, True)):
            inside = current()
            assert inside is not None
            assert (inside.span_id(), inside.module, inside.caller) == (5, "stock", "orders")
            assert call_as_a_whole() is call
        assert current() is call
    finally:
        CURRENT.reset(token)


def test_outside_of_calls_a_span_begins_a_trace_if_the_lot_falls_on_it(joined: OpenTelemetry):
    """As in a startup hook; its children are in it."""
    tracer = Tracer(1.0)
    joined.join(tracer)
    with (
        trace.get_tracer("shop").start_as_current_span("warm up"),
        trace.get_tracer("shop").start_as_current_span("load"),
    ):
        pass
    load, warm = tracer.take()
    assert (warm.parent_id, load.parent_id, load.trace_id) == (0, warm.span_id, warm.trace_id)
    joined.join(Tracer(0.0))
    with trace.get_tracer("shop").start_as_current_span("again") as span:
        assert not span.is_recording()


# Metrics.


def measured(joined: OpenTelemetry, name: str) -> list[Measure]:
    return [measure for measure in joined.take() if measure.name == name]


class Call:
    module = "stock"
    origin = None

    def span_id(self) -> int:
        return 0


def test_every_instrument_lands_as_measures(joined: OpenTelemetry):
    """Counters and histograms by what they grew, the others by what they are; each with the module at work."""
    early = metrics.get_meter("shop").create_counter("early")
    joined.join(Tracer())
    meter = metrics.get_meter("shop")
    sold, shelf = meter.create_counter("sold", "{item}"), meter.create_up_down_counter("shelf")
    weight = meter.create_histogram("weight", "kg", explicit_bucket_boundaries_advisory=[1, 10])
    warmth = meter.create_gauge("warmth", "Cel")
    total = iter([10, 15, 3])
    meter.create_observable_counter("seen", [lambda _: [Observation(next(total), {"door": 1})]])
    meter.create_observable_gauge("open", [lambda _: [Observation(1.5)]])
    meter.create_observable_up_down_counter("queue", [lambda _: [Observation(4)]])
    here.set_source(Call)
    for amount in (1, 2, -5):
        sold.add(amount, {"colour": "red", "size": 4})
    early.add(1)
    shelf.add(5)
    shelf.add(-2)
    for value in (0.5, 1, 7, 100):
        weight.record(value)
    warmth.set(20)
    warmth.set(21.5)
    found = {measure.name: measure for measure in joined.take()}
    assert found["sold"] == Measure("sold", 3, "stock", "counter", "{item}", {"colour": "red", "size": "4"})
    assert found["early"].value == 1
    assert (found["shelf"].value, found["shelf"].kind) == (3, "gauge")
    assert (found["warmth"].value, found["warmth"].unit) == (21.5, "Cel")
    assert found["weight"] == Measure("weight", 108.5, "stock", "histogram", "kg", {}, 4, {"1": 2, "10": 1, "inf": 1})
    assert (found["seen"].value, found["seen"].kind, found["seen"].attributes) == (10, "counter", {"door": "1"})
    assert (found["open"].value, found["queue"].value, found["queue"].kind) == (1.5, 4, "gauge")
    again = {measure.name: measure.value for measure in joined.take()}
    assert again == {"shelf": 3, "warmth": 21.5, "seen": 5, "open": 1.5, "queue": 4}
    assert measured(joined, "seen")[0].value == 3  # its owner began anew


def test_instruments_are_bounded_and_the_same_name_is_the_same_instrument(joined: OpenTelemetry):
    """A series for each order, or an instrument for each call, does not fill the memory; nothing is lost in the sum."""
    joined.join(Tracer())
    for number in range(SERIES_MAX + 500):
        metrics.get_meter("shop").create_counter("orders").add(1, {"order": number})
    found = measured(joined, "orders")
    assert len(found) == SERIES_MAX + 1
    assert sum(measure.value for measure in found) == SERIES_MAX + 500
    (rest,) = [measure for measure in found if "otel.metric.overflow" in measure.attributes]
    assert rest.value == 500


def test_a_callback_that_fails_is_told_of_once_and_the_others_are_asked(
    joined: OpenTelemetry, caplog: pytest.LogCaptureFixture
):
    """What measures does not end what is measured."""
    joined.join(Tracer())

    def broken(_: CallbackOptions) -> list[Observation]:
        raise RuntimeError("no sensor")

    metrics.get_meter("shop").create_observable_gauge("heat", [broken, lambda _: [Observation(7)]])
    assert [measure.value for measure in measured(joined, "heat") + measured(joined, "heat")] == [7, 7]
    assert len([record for record in caplog.records if "heat" in record.message]) == 1


# Logs.


def test_records_given_to_opentelemetry_are_lines_like_all_others(
    joined: OpenTelemetry, caplog: pytest.LogCaptureFixture
):
    """With level, attributes and exception, and the trace of the call at work."""
    joined.join(Tracer())
    call = CallContext("stock", "orders", trace=TraceContext(0xABC, 2, True), span=3)
    token = CURRENT.set(call)
    try:
        with caplog.at_level(logging.INFO):
            logger = _logs.get_logger("shop.audit")
            severity = _logs.SeverityNumber.WARN
            logger.emit(_logs.LogRecord(body="low %s", severity_number=severity, attributes={"left": 2, "name": "x"}))
            assert logger.enabled(severity_number=severity)
        (record,) = [record for record in caplog.records if record.name == "shop.audit"]
        line = json.loads(log.JsonLines().format(record))
    finally:
        CURRENT.reset(token)
    assert (line["message"], line["level"], line["attributes"]) == ("low %s", "warning", {"left": 2, "name": "x"})
    assert (line["module"], line["trace_id"], line["span_id"]) == ("stock", f"{0xABC:032x}", f"{3:016x}")


# Who comes first.


def run_program(text: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_provider_that_the_application_chose_is_left_alone():
    """It is said once, and its spans go where its owner wants."""
    out = run_program(
        """
        import logging, sys
        logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
        from opentelemetry import trace, metrics
        class Mine(trace.NoOpTracerProvider): pass
        mine = Mine()
        trace.set_tracer_provider(mine)
        from seamline.kernel.signal.trace import Tracer
        from seamline.run.otel import OPENTELEMETRY
        for _ in range(3):
            OPENTELEMETRY.join(Tracer(1.0))
        assert trace.get_tracer_provider() is mine
        assert type(metrics.get_meter_provider()).__module__.startswith("seamline")
        """
    )
    assert out.count("opentelemetry.trace") == 1


def test_nothing_of_opentelemetry_is_imported_for_an_application_without_it():
    """Joining looks, and finds nothing; an import that comes later is joined at the next look."""
    run_program(
        """
        import sys
        import seamline.run.host
        from seamline.kernel.signal.trace import Tracer
        from seamline.run.otel import OPENTELEMETRY
        tracer = Tracer(1.0)
        OPENTELEMETRY.join(tracer)
        assert not [name for name in sys.modules if name.startswith("opentelemetry")]
        assert OPENTELEMETRY.take() == []
        from opentelemetry import trace
        early = trace.get_tracer("early")
        OPENTELEMETRY.join(tracer)
        with early.start_as_current_span("x"):
            pass
        (span,) = tracer.take()
        assert span.name == "x"
        """
    )
