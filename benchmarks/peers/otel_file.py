"""OpenTelemetry's SDK: spans through its batch processor, encoded as OTLP and appended to a file, and nothing more."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from seamline.observe.records import Span

KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT}


class FileExporter(SpanExporter):
    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._file.write(encode_spans(spans).SerializeToString())
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._file.close()


class OtelFile:
    """The spans are made into the SDK's beforehand: what is measured is handing them on, encoding and writing."""

    def __init__(self, path: Path, given: Sequence[Sequence[Span]]) -> None:
        resources = {module: Resource({"service.name": module}) for module in {s.module for b in given for s in b}}
        self._spans = [_readable(span, resources[span.module]) for batch in given for span in batch]
        self._exporter = FileExporter(path)

    def export(self) -> float:
        """CPU in seconds."""
        processor = BatchSpanProcessor(
            self._exporter, max_queue_size=2 * len(self._spans), max_export_batch_size=500, schedule_delay_millis=250
        )
        began = time.process_time()
        for span in self._spans:
            processor.on_end(span)
        processor.force_flush()
        processor.shutdown()
        return time.process_time() - began


def _readable(span: Span, resource: Resource) -> ReadableSpan:
    flags = TraceFlags(TraceFlags.SAMPLED)
    trace_id = int.from_bytes(span.trace_id, "big")
    parent = int.from_bytes(span.parent_id, "big")
    return ReadableSpan(
        name=span.name,
        context=SpanContext(trace_id, int.from_bytes(span.span_id, "big"), is_remote=False, trace_flags=flags),
        parent=SpanContext(trace_id, parent, is_remote=True, trace_flags=flags) if parent else None,
        resource=resource,
        attributes={key: value for key, value in span.attributes.items() if isinstance(value, (str, int))},
        kind=KINDS[span.kind],
        status=Status(StatusCode.OK if span.status == "ok" else StatusCode.ERROR, span.message or None),
        start_time=span.start_ns,
        end_time=span.start_ns + span.duration_ns,
    )
