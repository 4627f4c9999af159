"""Trace context after W3C Trace Context, and spans that wait to be fetched.

One :class:`TraceContext` stands for a trace in a process, however many calls of the trace the process makes; which
span is at work is known to the call (``module/context.py``), and gets an id when somebody needs one.
"""

from __future__ import annotations

import dataclasses
import os
import random
import struct
import time
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from seamline.kernel.signal.metrics import Flows
from seamline.kernel.signal.stacks import is_library, shown_file

STATE_CHARACTERS_MAX: Final = 512
BAGGAGE_CHARACTERS_MAX: Final = 8192
"""What W3C asks to be passed on at least; longer ones are dropped."""
CARRIED: Final = (b"tracestate", b"baggage")
MESSAGE_CHARACTERS_MAX: Final = 512
KEPT_PER_S: Final = 100.0
"""Traces a second that are recorded because something in them failed or was slow."""
_BURST_S: Final = 1.0
_IDS_BYTES: Final = 25
_LAST: Final = struct.Struct(">QB")
_NOTES_MAX: Final = 4096
_FRAMES_MAX: Final = 12

_lots = random.Random()
"""A generator of this process's own, which no ``random.seed`` of a program reaches."""
_lot, _bits = _lots.random, _lots.getrandbits


def _seed_lots() -> None:
    _lots.seed(os.urandom(32))


_seed_lots()
os.register_at_fork(after_in_child=_seed_lots)


def new_span_id() -> int:
    return _bits(64) or 1


class Carried(NamedTuple):
    """What others gave a trace to carry: ``tracestate`` and ``baggage``, as they came."""

    state: str = ""
    baggage: str = ""


class TraceContext:
    """A trace as this process sees it. ``sampled`` says whether spans are recorded.

    ``span_id`` is the span under which the trace came here, 0 when it began here.
    """

    __slots__ = ("carried", "raw", "sampled", "span_id", "trace_id")

    def __init__(self, trace_id: int, span_id: int, sampled: bool, carried: Carried | None = None) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.sampled = sampled
        self.carried = carried

    def at(self, span_id: int) -> TraceContext:
        """The same trace, as it goes on under another span."""
        return TraceContext(self.trace_id, span_id, self.sampled, self.carried)

    def child(self) -> TraceContext:
        """The same trace, with a new span."""
        return self.at(new_span_id())

    def to_traceparent(self) -> str:
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{'01' if self.sampled else '00'}"

    def to_headers(self) -> list[tuple[bytes, bytes]]:
        """``traceparent``, and ``tracestate`` and ``baggage`` where the trace carries them."""
        headers = [(b"traceparent", self.to_traceparent().encode())]
        if self.carried is not None:
            headers += [
                (name, text.encode("latin-1")) for name, text in zip(CARRIED, self.carried, strict=True) if text
            ]
        return headers

    @classmethod
    def from_traceparent(cls, header: str | None, state: str = "", baggage: str = "") -> TraceContext | None:
        """The context in a ``traceparent`` header, or None when there is none or it is malformed."""
        if header is None or len(header) < 55 or header[2] != "-" or header[35] != "-" or header[52] != "-":
            return None
        try:
            version, trace_id = int(header[:2], 16), int(header[3:35], 16)
            span_id, flags = int(header[36:52], 16), int(header[53:55], 16)
        except ValueError:
            return None
        if version == 255 or trace_id == 0 or span_id == 0:
            return None
        return cls(trace_id, span_id, bool(flags & 1), carried(state, baggage))

    @classmethod
    def from_headers(cls, headers: Mapping[bytes, bytes]) -> TraceContext | None:
        """What :meth:`to_headers` gave, among others."""
        parent, *more = (headers.get(name, b"").decode("latin-1") for name in (b"traceparent", *CARRIED))
        return cls.from_traceparent(parent, *more)

    def to_bytes(self, span_id: int) -> bytes:
        """As it travels in a frame, on under ``span_id``."""
        try:
            raw = self.raw
        except AttributeError:
            more = "" if self.carried is None else "\n".join(self.carried)
            raw = self.raw = self.trace_id.to_bytes(16, "big") + bytes(_IDS_BYTES - 16) + more.encode("latin-1")
        return raw[:16] + _LAST.pack(span_id, self.sampled) + raw[_IDS_BYTES:]

    @classmethod
    def from_bytes(cls, raw: bytes) -> TraceContext | None:
        """What :meth:`to_bytes` made, read when somebody asks for more than ``sampled``; None if it is too short."""
        if len(raw) < _IDS_BYTES:
            return None
        made = cls.__new__(cls)
        made.raw = raw
        made.sampled = raw[24] & 1 == 1
        return made

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            if name == "raw" or name not in TraceContext.__slots__:
                raise AttributeError(name)
            raw = self.raw
            self.trace_id = int.from_bytes(raw[:16], "big") or 1
            self.span_id = int.from_bytes(raw[16:24], "big")
            state, _, baggage = raw[_IDS_BYTES:].decode("latin-1").partition("\n")
            self.carried = carried(state, baggage)
            return getattr(self, name)


def carried(state: str, baggage: str) -> Carried | None:
    """What a trace is to carry on; what is too long is left behind."""
    if not (state or baggage):
        return None
    return Carried(
        state if len(state) <= STATE_CHARACTERS_MAX else "", baggage if len(baggage) <= BAGGAGE_CHARACTERS_MAX else ""
    )


Happening = tuple[int, str, dict[str, Any] | None]
"""Something at one moment of a span: nanoseconds since the epoch, name, attributes."""


class Span(NamedTuple):
    """One finished piece of work. Times are nanoseconds since the epoch and nanoseconds.

    ``status`` is ``ok`` or a code of the Connect protocol. ``links`` are (trace id, span id). Who reads a span must not
    change its attributes, which many may share.
    """

    trace_id: int
    span_id: int
    parent_id: int
    name: str
    kind: str
    module: str
    peer: str
    start_ns: int
    duration_ns: int
    status: str = "ok"
    message: str = ""
    attributes: Mapping[str, Any] | None = None
    events: list[Happening] | None = None
    links: list[tuple[int, int]] | None = None
    trace_state: str = ""


@dataclasses.dataclass(slots=True)
class Notes:
    """What an application adds to a span that is under way."""

    attributes: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    events: list[Happening] = dataclasses.field(default_factory=list[Happening])
    links: list[tuple[int, int]] = dataclasses.field(default_factory=list[tuple[int, int]])


class Tracer:
    """Decides which traces are recorded, and keeps spans until somebody takes them. ``flows`` counts all the rest.

    A trace is recorded

    - from its beginning, in each process it comes to, if it is among the first ``sample_per_s`` new traces of the
      second in the process where it began, or if the lot of ``sample`` falls on it;
    - else from the first call on that failed (a declared fault is no failure) or took longer than ``slow_ms``. That
      call's span is recorded, with the spans of all calls around it that are under way in the same process, and
      whatever the trace does there, or calls from there, afterwards. What had ended before is lost, and so are the
      spans of callers in other processes that saw nothing of it: each process decides by what it sees. All of them are
      of one trace id, and each names the parent that it has in a trace recorded whole. In each process this is done
      for ``KEPT_PER_S`` traces a second at most; ``left_out`` counts the others.

    Args:
        sample: share of new traces that are recorded, 0 to 1.
        capacity: how many spans are kept until someone takes them; ``dropped`` counts those beyond.
        sample_per_s: so many new traces a second are recorded whatever ``sample`` says.
        slow_ms: how long a call may take before its trace is recorded.
    """

    def __init__(
        self, sample: float = 0.01, capacity: int = 16_384, *, sample_per_s: float = 0.0, slow_ms: float = 1000.0
    ) -> None:
        self.sample = sample
        self.slow_s = slow_ms / 1000
        self.flows = Flows()
        self.dropped = 0
        self.left_out = 0
        self._capacity = capacity
        self._pause_s = 1 / sample_per_s if sample_per_s > 0 else 0.0
        self._next = 0.0 if sample_per_s > 0 else float("inf")
        self._next_kept = 0.0
        self._spans: list[Span] = []
        self._notes: dict[int, Notes] = {}
        self._wall_ns = 0
        self._set_wall()

    def root(self) -> TraceContext:
        """A new trace. It has no span yet: its first span has no parent."""
        return TraceContext(_bits(128) or 1, 0, self._recorded())

    def aside(self) -> TraceContext:
        """A new trace of work that nobody asked for, such as following a log: recorded only if it fails or is slow."""
        return TraceContext(_bits(128) or 1, 0, False)

    def enter(self, trace: TraceContext | None) -> TraceContext:
        """The trace of a stranger's request: their own, whose wish to be recorded is granted as to a new one."""
        if trace is None:
            return self.root()
        trace.sampled = self._recorded()
        return trace

    def _recorded(self) -> bool:
        next_ = self._next
        if next_ != _NEVER:
            now = monotonic()
            if now >= next_:
                self._next = max(next_, now - _BURST_S) + self._pause_s
                return True
        return _lot() < self.sample

    def keep(self, trace: TraceContext) -> bool:
        """Record a trace from here on, as something failed or was slow; whether there was room for it."""
        if not trace.sampled:
            now = monotonic()
            if now < self._next_kept:
                self.left_out += 1
                return False
            self._next_kept = max(self._next_kept, now - _BURST_S) + 1 / KEPT_PER_S
            trace.sampled = True
        return True

    def record(
        self,
        trace: TraceContext,
        span_id: int,
        parent_id: int,
        name: str,
        kind: str,
        module: str,
        peer: str,
        started: float,
        seconds: float,
        status: str = "ok",
        message: str = "",
        attributes: Mapping[str, Any] | None = None,
        events: list[Happening] | None = None,
        links: list[tuple[int, int]] | None = None,
    ) -> None:
        """Add a span that began at ``started`` (of ``time.monotonic``) and took so many ``seconds``."""
        if len(self._spans) >= self._capacity:
            self.dropped += 1
            return
        if self._notes:
            attributes, events, links = self._noted(span_id, attributes, events, links)
        state = trace.carried.state if trace.carried is not None else ""
        start_ns, duration_ns = self._wall_ns + int(started * 1e9), int(seconds * 1e9)
        made = (
            trace.trace_id, span_id, parent_id, name, kind, module, peer, start_ns, duration_ns, status, message,
            attributes, events, links, state,
        )  # fmt: skip
        self._spans.append(_new(Span, made))

    def notes_of(self, span_id: int) -> Notes:
        """What is to be added to a span once it is recorded; for a trace that is."""
        found = self._notes.get(span_id)
        if found is None:
            while len(self._notes) >= _NOTES_MAX:  # of spans that were never recorded
                del self._notes[next(iter(self._notes))]
            found = self._notes[span_id] = Notes()
        return found

    def _noted(
        self,
        span_id: int,
        attributes: Mapping[str, Any] | None,
        events: list[Happening] | None,
        links: list[tuple[int, int]] | None,
    ) -> tuple[Mapping[str, Any] | None, list[Happening] | None, list[tuple[int, int]] | None]:
        notes = self._notes.pop(span_id, None)
        if notes is None:
            return attributes, events, links
        return (
            {**(attributes or {}), **notes.attributes},
            [*notes.events, *(events or ())],
            [*(links or ()), *notes.links],
        )

    def add(self, span: Span) -> None:
        """Add a span that was made elsewhere."""
        if len(self._spans) >= self._capacity:
            self.dropped += 1
        else:
            self._spans.append(span)

    def at_ns(self, moment: float) -> int:
        """A moment of ``time.monotonic`` as nanoseconds since the epoch."""
        return self._wall_ns + int(moment * 1e9)

    def _set_wall(self) -> None:
        self._wall_ns = time.time_ns() - time.monotonic_ns()

    def take(self) -> list[Span]:
        """The spans recorded since the last call, oldest first."""
        spans, self._spans = self._spans, []
        self._set_wall()
        return spans


_NEVER: Final = float("inf")
_new = cast("Callable[[type[Span], tuple[Any, ...]], Span]", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]
"""Half the price of ``Span(...)``."""


def exception_event(error: BaseException, at_ns: int) -> Happening:
    """An exception as an event of a span, with the application's own frames: the innermost twelve."""
    frames: list[str] = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        if not is_library(code.co_filename):
            frames.append(f"{shown_file(code.co_filename)}:{step.tb_lineno} {code.co_qualname}")
        step = step.tb_next
    attributes: dict[str, Any] = {"exception.type": type(error).__qualname__, "exception.message": said(error)}
    if frames:
        attributes["exception.stacktrace"] = "\n".join(frames[-_FRAMES_MAX:])
    return at_ns, "exception", attributes


def said(error: BaseException) -> str:
    """What an error says, cut to a length; nothing it does keeps us from going on."""
    try:
        text = str(error)
    except Exception:  # whatever a stranger's __str__ raises
        text = f"<{type(error).__name__}>"
    return text if len(text) <= MESSAGE_CHARACTERS_MAX else f"{text[: MESSAGE_CHARACTERS_MAX - 1]}…"
