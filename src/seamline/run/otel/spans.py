"""Users' spans as parts of the call under way, and the call's own span as the one that is current."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar, Token
from typing import Any, Final, cast

from opentelemetry import context as api
from opentelemetry import trace
from opentelemetry.context.context import Context, _RuntimeContext  # pyright: ignore[reportPrivateUsage]
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util._decorator import _agnosticcontextmanager  # pyright: ignore[reportPrivateUsage]

from seamline.kernel.signal.trace import Notes, Span, TraceContext, Tracer, new_span_id
from seamline.module.context import CURRENT, CallContext, whole
from seamline.run.otel.values import ATTRIBUTES_MAX, clean, clean_all, shown

FAILED: Final = "unknown"
"""Connect's code for an error that says no more of itself."""

_EVENTS_MAX: Final = 128

TracerSource = Callable[[], Tracer]


class CallSpan(trace.Span):
    """The platform's span of the call under way: what a user adds stands on it when the call has ended.

    Its name and its end are the platform's; of a status, what the user says is added as attributes.
    """

    def __init__(self, context: SpanContext, notes: Notes) -> None:
        self._context = context
        self._notes = notes
        self._recording = True

    def get_span_context(self) -> SpanContext:
        return self._context

    def is_recording(self) -> bool:
        return self._recording

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        for name, value in attributes.items():
            self.set_attribute(name, value)

    def set_attribute(self, key: str, value: Any) -> None:
        known = self._notes.attributes
        if self._recording and (key in known or len(known) < ATTRIBUTES_MAX):
            known[str(key)] = clean(value)

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        if self._recording and len(self._notes.events) < _EVENTS_MAX:
            at_ns = time.time_ns() if timestamp is None else timestamp
            self._notes.events.append((at_ns, str(name), clean_all(attributes) or None))

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002  # a link is told without
        if self._recording and context.is_valid and len(self._notes.links) < _EVENTS_MAX:
            self._notes.links.append((context.trace_id, context.span_id))

    def update_name(self, name: str) -> None:
        """The platform's name stays."""

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        code, said = _status(status, description)
        self.set_attribute("otel.status_code", code.name)
        if said:
            self.set_attribute("otel.status_description", said)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: ARG002  # the API's signature; it is deprecated there
    ) -> None:
        kind = type(exception)
        told = {
            "exception.type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
            "exception.message": shown(exception),
            "exception.stacktrace": "".join(traceback.format_exception(exception)),
        }
        self.add_event("exception", {**told, **(attributes or {})}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """It ends with the call."""


class OwnSpan(CallSpan):
    """A span that the user began."""

    def __init__(
        self, tracer: Tracer, origin: TraceContext, parent_id: int, name: str, kind: str, scope: str, start_ns: int
    ) -> None:
        self.span_id = new_span_id()
        super().__init__(_span_context(origin, self.span_id), Notes())
        self.origin = origin
        self._name = name
        self._status: StatusCode = StatusCode.UNSET
        self._message = ""
        self._tracer = tracer
        self._parent_id = parent_id
        self._kind = kind
        self._start_ns = start_ns
        call = CURRENT.get(None)
        self._module = call.module if call is not None else ""
        self.set_attribute("otel.scope.name", scope)

    def update_name(self, name: str) -> None:
        if self._recording:
            self._name = str(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        code, said = _status(status, description)
        # OK is final, and nothing goes back to UNSET, says the specification.
        if self._recording and self._status is not StatusCode.OK and code is not StatusCode.UNSET:
            self._status, self._message = code, said if code is StatusCode.ERROR else ""

    def end(self, end_time: int | None = None) -> None:
        if not self._recording:
            return
        self._recording = False
        notes, origin = self._notes, self.origin
        end_ns = time.time_ns() if end_time is None else end_time
        self._tracer.add(
            Span(
                origin.trace_id, self.span_id, self._parent_id, self._name, self._kind, self._module, "",
                self._start_ns, max(end_ns - self._start_ns, 0),
                FAILED if self._status is StatusCode.ERROR else "ok", self._message, notes.attributes,
                notes.events or None, notes.links or None, origin.carried.state if origin.carried else "",
            )
        )  # fmt: skip


class UserTracer(trace.Tracer):
    """``scope`` names the library or the part of the application that asked for it."""

    def __init__(self, source: TracerSource, scope: str) -> None:
        self._source = source
        self._scope = scope

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,  # noqa: ARG002  # for start_as_current_span
        set_status_on_exception: bool = True,  # noqa: ARG002  # likewise
    ) -> trace.Span:
        above = trace.get_current_span(context)
        parent = above.get_span_context()
        tracer, call = self._source(), CURRENT.get(None)
        if parent.is_valid:
            origin = _origin(call, parent)
        else:
            origin = call.origin if call is not None and call.origin is not None else tracer.root()
        if not origin.sampled:
            return above if parent.is_valid else trace.NonRecordingSpan(_span_context(origin, new_span_id()))
        span = OwnSpan(
            tracer, origin, parent.span_id, str(name), kind.name.lower(), self._scope, start_time or time.time_ns()
        )
        span.set_attributes(attributes or {})
        for link in links or ():
            span.add_link(link.context)
        return span

    @_agnosticcontextmanager
    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Iterator[trace.Span]:
        span = self.start_span(name, context, kind, attributes, links, start_time)
        with trace.use_span(span, end_on_exit, record_exception, set_status_on_exception) as used:
            yield used


class TracerProvider(trace.TracerProvider):
    def __init__(self, source: TracerSource) -> None:
        self._source = source

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,  # noqa: ARG002  # the API's signature
        schema_url: str | None = None,  # noqa: ARG002  # likewise
        attributes: Mapping[str, Any] | None = None,  # noqa: ARG002  # likewise
    ) -> UserTracer:
        return UserTracer(self._source, instrumenting_module_name)


_Attached = tuple[Token[Any], Token[CallContext] | None]


class FollowingCalls(_RuntimeContext):
    """OpenTelemetry's context, in which the span of the call under way is current unless the user began one in it.

    Asking is all that costs: a call neither attaches nor detaches anything. The API has no way to choose a context
    after it was imported but to put it into its place.
    """

    def __init__(self, source: TracerSource) -> None:
        self._source = source
        self._attached: ContextVar[tuple[Context, CallContext | None]] = ContextVar("seamline_opentelemetry")

    def get_current(self) -> Context:
        context, attached_in = self._attached.get(_NOTHING)
        call = CURRENT.get(None)
        if call is None or call.origin is None or call is attached_in or call is whole(attached_in):
            return context  # the last: a stream's handler goes on after an item
        return trace.set_span_in_context(_span_of(call, self._source()), context)

    def attach(self, context: Context) -> Token[Context]:
        call, entered = CURRENT.get(None), None
        span = trace.get_current_span(context)
        if call is not None and call.origin is not None and isinstance(span, OwnSpan):
            call = _under(call, span)
            entered = CURRENT.set(call)
        attached: _Attached = self._attached.set((context, call)), entered
        return cast("Token[Context]", attached)  # opaque to everybody else

    def detach(self, token: Token[Context]) -> None:
        attached, entered = cast("_Attached", token)
        self._attached.reset(attached)
        if entered is not None:
            CURRENT.reset(entered)


def follow_calls(source: TracerSource) -> None:
    api._RUNTIME_CONTEXT = FollowingCalls(source)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


_NOTHING: Final[tuple[Context, CallContext | None]] = (Context(), None)


def _under(call: CallContext, span: OwnSpan) -> CallContext:
    under = call.under(span.span_id)
    under.origin = span.origin
    return under


def _status(status: Status | StatusCode, description: str | None) -> tuple[StatusCode, str]:
    if isinstance(status, Status):
        return status.status_code, clean(status.description or "")
    return status, clean(description or "")


def _span_of(call: CallContext, tracer: Tracer) -> trace.Span:
    origin, span_id = call.origin, call.span_id()
    assert origin is not None
    context = _span_context(origin, span_id)
    return CallSpan(context, tracer.notes_of(span_id)) if origin.sampled else trace.NonRecordingSpan(context)


def _origin(call: CallContext | None, parent: SpanContext) -> TraceContext:
    """The trace of a parent: the one at work if it is that, so that what becomes of it is known."""
    if call is not None and call.origin is not None and call.origin.trace_id == parent.trace_id:
        return call.origin
    return TraceContext(parent.trace_id, parent.span_id, bool(parent.trace_flags & TraceFlags.SAMPLED))


def _span_context(origin: TraceContext, span_id: int) -> SpanContext:
    state = TraceState.from_header([origin.carried.state]) if origin.carried and origin.carried.state else None
    flags = TraceFlags(TraceFlags.SAMPLED if origin.sampled else TraceFlags.DEFAULT)
    return SpanContext(origin.trace_id, span_id, False, flags, state)
