"""OpenTelemetry's protocol, in and out.

``OtlpReceiver`` takes what other languages' services tell, ``OtlpExporter`` sends what ours tell to any backend. What
is in the messages is decided by ``mapping`` (in) and ``telling`` (out); how they look on the wire by ``messages`` and
``protobuf``. Nothing here knows where telemetry is kept.
"""

from seamline.observe.otlp.exporter import OtlpExporter
from seamline.observe.otlp.receiver import OtlpReceiver

__all__ = ["OtlpExporter", "OtlpReceiver"]
