"""From OpenTelemetry's SDK over the wire into the store, and out of it again: nothing is lost on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from tests.observe.otlp_rig import Place
from tests.observe.test_otlp_mapping import NOW, decoding, peer_request, same, spans
from tests.observe.test_otlp_sdk import assert_same, record_spans

from seamline.kernel.settings.observe import ObserveSettings
from seamline.observe.otlp import OtlpReceiver
from seamline.observe.records import Span
from seamline.observe.store import TelemetryReader, TelemetryStore


@pytest.fixture
def store(tmp_path: Path) -> Generator[TelemetryStore]:
    made = TelemetryStore(tmp_path / "telemetry", ObserveSettings())
    made.start()
    yield made
    made.close()


async def test_the_sdks_spans_are_found_in_the_store(store: TelemetryStore):
    """Every span of the SDK is read from the file as it was recorded, and the graph has its calls."""
    receiver = OtlpReceiver(ObserveSettings(otlp_listen="127.0.0.1:0"), store.add, room=lambda: not store.full)
    await receiver.start()
    try:
        url = f"{Place(receiver).url}/v1/traces"
        recorded = await asyncio.to_thread(lambda: record_spans(OTLPSpanExporter(url)))
    finally:
        await receiver.stop()
    await asyncio.to_thread(store.flush)
    reader = TelemetryReader(store.folder)
    try:
        for theirs in recorded:
            assert theirs.context is not None
            found = {span.span_id: span for span in reader.trace(f"{theirs.context.trace_id:032x}")}
            assert_same(found[theirs.context.span_id.to_bytes(8, "big")], theirs)
        edges = reader.graph(time.time_ns() - 60 * 10**9, time.time_ns() + 10**9)
        assert [(edge.caller, edge.callee) for edge in edges] == [("", "billing")]
    finally:
        reader.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spans())
def test_whatever_a_span_holds(store: TelemetryStore, span: Span):
    """Any attributes, events and links come out of the file as they came over the wire, types and all."""
    (batch,) = decoding().take("traces", "protobuf", "", peer_request(span).SerializeToString(), NOW).batches
    store.add(batch)
    store.flush()
    reader = TelemetryReader(store.folder)
    try:
        kept = [found for found in reader.trace(span.trace_id.hex()) if found.span_id == span.span_id]
        assert any(same(found, batch.spans[0]) for found in kept)
    finally:
        reader.close()
