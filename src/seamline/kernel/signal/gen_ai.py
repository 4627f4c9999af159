"""Work of models, agents and their tools, by OpenTelemetry's conventions for generative AI.

What was asked and answered is not recorded, here or anywhere: it is the user's.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from time import monotonic
from typing import Any, Final, Literal

from seamline.kernel.signal import here
from seamline.kernel.signal.measures import Histogram, Measure
from seamline.kernel.signal.metrics import EdgeStats
from seamline.kernel.signal.trace import Tracer, new_span_id

Operation = Literal[
    "chat", "text_completion", "generate_content", "embeddings", "retrieval", "create_agent", "invoke_agent",
    "invoke_workflow", "execute_tool",
]  # fmt: skip
_OF_AGENTS: Final = frozenset({"create_agent", "invoke_agent", "invoke_workflow", "execute_tool"})
_TOKENS: Final = tuple(4**power for power in range(14))
_SECONDS: Final = tuple(0.01 * 2**power for power in range(14))
_SERIES_MAX: Final = 1_000

_Series = tuple[str, str, tuple[tuple[str, str], ...]]
"""Name, module and attributes."""


class Doing:
    """One piece of work, while it lasts. What is set on it stands on the span; of ``usage`` there are measures, too."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        self.attributes = attributes
        self.input_tokens = 0
        self.output_tokens = 0
        self.first_chunk_at = 0.0

    def usage(self, *, input_tokens: int = 0, output_tokens: int = 0, cached_input_tokens: int = 0) -> None:
        """What it took so far; given several times, it adds up. ``cached_input_tokens`` are among the input."""
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens
        self.attributes["gen_ai.usage.input_tokens"] = self.input_tokens
        self.attributes["gen_ai.usage.output_tokens"] = self.output_tokens
        if cached_input_tokens:
            self.attributes["gen_ai.usage.cache_read.input_tokens"] = cached_input_tokens

    def response(self, *, model: str = "", id: str = "", finish_reasons: list[str] | None = None) -> None:  # noqa: A002  # the convention's name
        """Who answered, and why the answer ended."""
        told = {"model": model, "id": id, "finish_reasons": finish_reasons}
        self.attributes |= {f"gen_ai.response.{name}": value for name, value in told.items() if value}

    def first_chunk(self) -> None:
        """The first part of a streamed answer is here."""
        self.first_chunk_at = self.first_chunk_at or monotonic()


class GenAi:
    """Of one process. Counts are edges of side ``model``; spans go to ``tracer`` if the trace at work is recorded."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._histograms: dict[_Series, Histogram] = {}

    @contextmanager
    def work(
        self, operation: Operation, *, provider: str, model: str = "", agent: str = "", tool: str = "", **request: Any
    ) -> Generator[Doing]:
        """``with gen_ai.work("chat", provider="openai", model="...", temperature=0.2) as doing:``

        What is called inside is its child. ``request`` are further ``gen_ai.request.*``.
        """
        named = {"request.model": model, "agent.name": agent, "tool.name": tool}
        of_whom = {"gen_ai.operation.name": operation, "gen_ai.provider.name": provider}
        of_whom |= {f"gen_ai.{name}": value for name, value in named.items() if value}
        doing = Doing({**of_whom, **{f"gen_ai.request.{name}": value for name, value in request.items()}})
        call, span_id, began = here.call(), new_span_id(), monotonic()
        trace = call.origin if call is not None else None
        parent_id = call.span_id() if call is not None else 0
        error: BaseException | None = None
        try:
            with here.under(trace.at(span_id)) if trace is not None else nullcontext():
                yield doing
        except BaseException as raised:
            error = raised
            raise
        finally:
            seconds, code = monotonic() - began, _code(error)
            module = call.module if call is not None else ""
            what = tool or agent or model
            self._count(module, of_whom, doing, began, seconds, code)
            self._tracer.flows.stats(module, provider, f"{operation} {what}".strip(), "model").record(seconds, code)
            if trace is not None and (trace.sampled or (code == "internal" and self._tracer.keep(trace))):
                if error is not None:
                    doing.attributes["error.type"] = type(error).__name__
                kind = "internal" if operation in _OF_AGENTS else "client"
                self._tracer.record(
                    trace, span_id, parent_id, f"{operation} {what}".strip(), kind, module, provider, began,
                    seconds, code or "ok", "", doing.attributes,
                )  # fmt: skip

    def series(self, operation: Operation, *, provider: str, model: str, module: str = "") -> Series:
        """For who makes very many calls and knows when they are over what they took. It may be kept."""
        return Series(self, operation, provider, model, module)

    def span(self, call: here.Call, of: Series, began: float, seconds: float, code: str, told: dict[str, Any]) -> None:
        """A call of ``of`` that is over, if the trace at work is recorded. ``told`` are further attributes."""
        trace = call.origin
        if trace is not None and (trace.sampled or (code == "internal" and self._tracer.keep(trace))):
            self._tracer.record(
                trace, new_span_id(), call.span_id(), of.name, "client", call.module, of.provider, began, seconds,
                code or "ok", "", {**of.attributes, **told},
            )  # fmt: skip

    def take(self) -> list[Measure]:
        """Durations and tokens since they were taken last."""
        taken = [
            histogram.take(name, module, "s" if name.endswith(("duration", "chunk")) else "{token}", dict(attributes))
            for (name, module, attributes), histogram in self._histograms.items()
        ]
        return [measure for measure in taken if measure is not None]

    def _count(
        self, module: str, of_whom: dict[str, str], doing: Doing, began: float, seconds: float, code: str
    ) -> None:
        failed = {"error.type": code} if code else {}
        self._add("gen_ai.client.operation.duration", module, {**of_whom, **failed}, seconds, _SECONDS)
        if doing.first_chunk_at:
            waited = doing.first_chunk_at - began
            self._add("gen_ai.client.operation.time_to_first_chunk", module, of_whom, waited, _SECONDS)
        for kind, tokens in (("input", doing.input_tokens), ("output", doing.output_tokens)):
            if tokens:
                typed = {**of_whom, "gen_ai.token.type": kind}
                self._add("gen_ai.client.token.usage", module, typed, tokens, _TOKENS)

    def _add(self, name: str, module: str, attributes: dict[str, str], value: float, bounds: tuple[float, ...]) -> None:
        self.histogram(name, module, attributes, bounds).add(value)

    def histogram(self, name: str, module: str, attributes: dict[str, str], bounds: tuple[float, ...]) -> Histogram:
        """Of one series; the same for the same names."""
        series = name, module, tuple(attributes.items())
        if series not in self._histograms and len(self._histograms) >= _SERIES_MAX:
            series = name, "", (("otel.metric.overflow", "true"),)
        histogram = self._histograms.get(series)
        if histogram is None:
            histogram = self._histograms[series] = Histogram(bounds)
        return histogram

    def edge(self, module: str, provider: str, name: str) -> EdgeStats:
        return self._tracer.flows.stats(module, provider, name, "model")


class Series:
    """Calls of one operation of one model by one module."""

    __slots__ = ("_edge", "_first", "_gen_ai", "_in", "_out", "_took", "attributes", "module", "name", "provider")

    def __init__(self, gen_ai: GenAi, operation: Operation, provider: str, model: str, module: str) -> None:
        self._gen_ai = gen_ai
        self.name = f"{operation} {model}"
        self.provider = provider
        self.module = module
        self.attributes = of_whom = {
            "gen_ai.operation.name": operation, "gen_ai.provider.name": provider, "gen_ai.request.model": model,
        }  # fmt: skip
        tokens = "gen_ai.client.token.usage"
        self._took = gen_ai.histogram("gen_ai.client.operation.duration", module, of_whom, _SECONDS)
        self._first = gen_ai.histogram("gen_ai.client.operation.time_to_first_chunk", module, of_whom, _SECONDS)
        self._in = gen_ai.histogram(tokens, module, {**of_whom, "gen_ai.token.type": "input"}, _TOKENS)
        self._out = gen_ai.histogram(tokens, module, {**of_whom, "gen_ai.token.type": "output"}, _TOKENS)
        self._edge = gen_ai.edge(module, provider, self.name)

    def done(self, seconds: float, code: str, *, input_tokens: int, output_tokens: int, first_s: float = 0.0) -> None:
        """One is over. ``code`` is empty where it went well; ``first_s`` is zero where nothing was streamed."""
        if code:
            failed = {**self.attributes, "error.type": code}
            took = self._gen_ai.histogram("gen_ai.client.operation.duration", self.module, failed, _SECONDS)
        else:
            took = self._took
        took.add(seconds)
        if first_s:
            self._first.add(first_s)
        if input_tokens:
            self._in.add(input_tokens)
        if output_tokens:
            self._out.add(output_tokens)
        self._edge.record(seconds, code)


def _code(error: BaseException | None) -> str:
    if error is None:
        return ""
    return "internal" if isinstance(error, Exception) else "canceled"
