// Records two spans, a log line and a counter with OpenTelemetry's SDK, and prints what the SDK itself holds of the spans.
const { trace, context, SpanKind, SpanStatusCode } = require("@opentelemetry/api");
const { BasicTracerProvider, SimpleSpanProcessor, InMemorySpanExporter } = require("@opentelemetry/sdk-trace-base");
const { LoggerProvider, SimpleLogRecordProcessor } = require("@opentelemetry/sdk-logs");
const { OTLPLogExporter } = require("@opentelemetry/exporter-logs-otlp-proto");
const { MeterProvider, PeriodicExportingMetricReader } = require("@opentelemetry/sdk-metrics");
const { OTLPMetricExporter } = require("@opentelemetry/exporter-metrics-otlp-proto");
const { resourceFromAttributes } = require("@opentelemetry/resources");

const [, , way, target, http] = process.argv;
const kinds = { json: "http", proto: "proto", grpc: "grpc" };
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${kinds[way]}`);
const resource = resourceFromAttributes({ "service.name": "node-shop" });
const nanoseconds = ([seconds, rest]) => (BigInt(seconds) * 1000000000n + BigInt(rest)).toString();

async function main() {
  const memory = new InMemorySpanExporter();
  const exporter = new OTLPTraceExporter({ url: way === "grpc" ? target : `${target}/v1/traces` });
  const spanProcessors = [new SimpleSpanProcessor(exporter), new SimpleSpanProcessor(memory)];
  const provider = new BasicTracerProvider({ resource, spanProcessors });
  const tracer = provider.getTracer("shop", "1.0");

  const outer = tracer.startSpan("GET /cart/:id", {
    kind: SpanKind.SERVER,
    attributes: { "http.request.method": "GET", text: "é", whole: 9007199254740991, part: 0.25, yes: true, list: [1, 2] },
  });
  outer.addEvent("found", { rows: 3 });
  const inner = tracer.startSpan(
    "POST",
    { kind: SpanKind.CLIENT, attributes: { "peer.service": "payments" } },
    trace.setSpan(context.active(), outer),
  );
  inner.setStatus({ code: SpanStatusCode.ERROR, message: "refused" });
  inner.end();
  outer.end();

  const logs = new LoggerProvider({
    resource,
    processors: [new SimpleLogRecordProcessor({ exporter: new OTLPLogExporter({ url: `${http}/v1/logs` }) })],
  });
  logs.getLogger("shop").emit({ severityNumber: 13, severityText: "WARN", body: "hello", attributes: { n: 1 } });

  const reader = new PeriodicExportingMetricReader({ exporter: new OTLPMetricExporter({ url: `${http}/v1/metrics` }) });
  const meters = new MeterProvider({ resource, readers: [reader] });
  meters.getMeter("shop").createCounter("node.jobs").add(7);

  const recorded = memory.getFinishedSpans().map((span) => ({
    traceId: span.spanContext().traceId,
    spanId: span.spanContext().spanId,
    parentSpanId: span.parentSpanContext ? span.parentSpanContext.spanId : "",
    name: span.name,
    start: nanoseconds(span.startTime),
    end: nanoseconds(span.endTime),
    attributes: span.attributes,
    events: span.events.map((event) => [event.name, nanoseconds(event.time), event.attributes]),
  }));
  await Promise.all([provider.shutdown(), logs.shutdown(), meters.shutdown()]);
  process.stdout.write(JSON.stringify(recorded));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
