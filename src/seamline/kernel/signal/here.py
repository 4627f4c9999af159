"""Which call is at work, for signals of all kinds. The kernel knows of no calls, so who makes them says it once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from seamline.kernel.signal.trace import TraceContext


class Call(Protocol):
    """``module`` is the module at work, ``origin`` its trace, as all calls of the trace share it in this process."""

    @property
    def module(self) -> str: ...

    @property
    def origin(self) -> TraceContext | None: ...

    def span_id(self) -> int:
        """The span at work; what is done now is its child."""
        ...


def _nobody() -> Call | None:
    return None


def _unchanged(_: TraceContext) -> AbstractContextManager[None]:
    return nullcontext()


_source: Callable[[], Call | None] = _nobody
_under: Callable[[TraceContext], AbstractContextManager[None]] = _unchanged


def set_source(
    source: Callable[[], Call | None], under: Callable[[TraceContext], AbstractContextManager[None]] = _unchanged
) -> None:
    """Ask ``source`` for the call at work, and ``under`` to make what follows a part of another span of its trace."""
    global _source, _under
    _source, _under = source, under


def call() -> Call | None:
    """The call at work, None between calls."""
    return _source()


def module() -> str:
    """The module at work, ``""`` between modules."""
    found = _source()
    return found.module if found is not None else ""


def under(trace: TraceContext) -> AbstractContextManager[None]:
    """``with under(span):`` what is called inside is a child of that span."""
    return _under(trace)
