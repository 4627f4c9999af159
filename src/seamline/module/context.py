"""What a handler can know of the call it serves."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from seamline.kernel.signal.trace import TraceContext, new_span_id

if TYPE_CHECKING:
    from seamline.module.principal import Subject

NO_DEADLINE = float("inf")


class CallContext:
    """The call under way: who asks whom, until when, under which trace.

    ``module`` is the module at work, ``caller`` the module that asked (``"gateway"`` for a public request).
    ``deadline`` is in seconds of the event loop's clock, ``inf`` when there is none.
    ``idempotency_key`` names what the call is for, however often it is tried; the callee runs it once.
    ``key_for_calls`` is the one that calls made from here carry. ``subject`` is on whose behalf it is made (a handler
    asks for :class:`~seamline.Principal`), None when nobody has signed in.

    ``origin`` is the trace as it came to this process, which all calls of the trace share here. ``span`` is the id of
    the span of this call: 0 while nobody has needed it, None when none is recorded for it.
    """

    __slots__ = (
        "caller", "deadline", "idempotency_key", "key_for_calls", "method", "module", "origin", "priority", "span",
        "subject",
    )  # fmt: skip

    def __init__(
        self,
        module: str,
        caller: str,
        method: str = "",
        deadline: float = NO_DEADLINE,
        trace: TraceContext | None = None,
        priority: int = 1,
        idempotency_key: str | None = None,
        key_for_calls: str | None = None,
        subject: Subject | None = None,
        span: int | None = None,
    ) -> None:
        self.module = module
        self.caller = caller
        self.method = method
        self.deadline = deadline
        self.origin = trace
        self.priority = priority
        self.idempotency_key = idempotency_key
        self.key_for_calls = key_for_calls
        self.subject = subject
        self.span = span

    @property
    def trace(self) -> TraceContext | None:
        """Where in which trace we are: what is done now, here or elsewhere, is a child of its span."""
        origin = self.origin
        return origin if origin is None or self.span is None else origin.at(self.span_id())

    def span_id(self) -> int:
        """The id of the span of this call, or of the one under which the trace came here."""
        span = self.span
        if span is None:
            return self.origin.span_id if self.origin is not None else 0
        if not span:
            span = self.span = new_span_id()
        return span

    def under(self, span_id: int) -> CallContext:
        """The same call, as it goes on under another span of its trace."""
        under = _Under(
            self.module, self.caller, self.method, self.deadline, self.origin, self.priority, self.idempotency_key,
            self.key_for_calls, self.subject, span_id,
        )  # fmt: skip
        under.call = self.call if isinstance(self, _Under) else self
        return under


class _Under(CallContext):
    """A part of ``call``, under another span."""

    __slots__ = ("call",)
    call: CallContext


CURRENT: ContextVar[CallContext] = ContextVar("seamline_call")


def current() -> CallContext | None:
    """The call under way, or None outside of one."""
    return CURRENT.get(None)


def whole(call: CallContext | None) -> CallContext | None:
    """The call of which ``call`` is a part under another span, or itself."""
    return call.call if isinstance(call, _Under) else call


def call_as_a_whole() -> CallContext | None:
    """The same for as long as the call lasts, whichever spans are begun in it: tells one call from another."""
    return whole(CURRENT.get(None))


@contextmanager
def under(trace: TraceContext) -> Generator[None]:
    """``with under(span):`` what the call does inside is a child of that span of its trace; outside of calls nothing
    changes."""
    call = CURRENT.get(None)
    if call is None:
        yield
        return
    token = CURRENT.set(call.under(trace.span_id))
    try:
        yield
    finally:
        CURRENT.reset(token)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where this process stands: the application, the topology in force, the workload and its replica."""

    app: str = ""
    topology: str = ""
    workload: str = ""
    replica: int = 0


_place = Place()


def place() -> Place:
    """Where the calling code runs. For display; behaviour must not depend on it."""
    return _place


def set_place(value: Place) -> None:
    """Said once by whoever starts the process."""
    global _place  # noqa: PLW0603  # one process stands in one place
    _place = value
