"""The application's own use of the OpenTelemetry API becomes a part of what the platform tells.

Here and not lower, because it joins calls (``module``) to signals (``kernel``). Nothing of OpenTelemetry is imported
unless the application imports it. Who has chosen a provider of its own before the modules are up keeps it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seamline.kernel.signal.measures import Measure
    from seamline.kernel.signal.trace import Tracer

_log = logging.getLogger("seamline.run")


class OpenTelemetry:
    """Answers the API's three questions for a provider: of traces, of metrics, of logs.

    A provider is for the life of the process, so it asks the newest host for its tracer.
    """

    def __init__(self) -> None:
        self._tracer: list[Tracer] = []
        self._asked: set[str] = set()
        self._take: Callable[[], list[Measure]] | None = None

    def join(self, tracer: Tracer) -> None:
        """For whoever hosts modules, once they are up, and now and then after that: what was imported later joins
        then, too. Costs nothing where there is nothing to join."""
        self._tracer[:] = [tracer]
        for name, join in (
            ("opentelemetry.trace", self._join_traces),
            ("opentelemetry.metrics", self._join_metrics),
            ("opentelemetry._logs", self._join_logs),
        ):
            if name not in self._asked and name in sys.modules:
                self._asked.add(name)
                if not join():
                    _log.info("the application has a provider of its own for %s, which is left alone", name)

    def take(self) -> list[Measure]:
        """What the application measured since it was taken last."""
        return self._take() if self._take is not None else []

    def _join_traces(self) -> bool:
        from opentelemetry import trace

        from seamline.run.otel.spans import TracerProvider, follow_calls

        if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            return False
        follow_calls(self._newest)
        trace.set_tracer_provider(TracerProvider(self._newest))
        return True

    def _join_metrics(self) -> bool:
        from opentelemetry import metrics

        from seamline.run.otel.metrics import MeterProvider

        if "Proxy" not in type(metrics.get_meter_provider()).__name__:
            return False
        provider = MeterProvider()
        metrics.set_meter_provider(provider)
        self._take = provider.take
        return True

    def _join_logs(self) -> bool:
        from opentelemetry import _logs

        from seamline.run.otel.logs import LoggerProvider

        if "Proxy" not in type(_logs.get_logger_provider()).__name__:
            return False
        _logs.set_logger_provider(LoggerProvider())
        return True

    def _newest(self) -> Tracer:
        return self._tracer[0]


OPENTELEMETRY = OpenTelemetry()
"""Of this process, as its providers are."""
