"""What a public request leaves behind: a count by route and class of answer, and a span where its trace is recorded."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from seamline.kernel.signal.trace import CARRIED, TraceContext, exception_event, said

if TYPE_CHECKING:
    from seamline.gateway.asgi import Scope
    from seamline.kernel.signal.trace import Tracer
    from seamline.kernel.wire.http1 import Header
    from seamline.module.principal import User

TRACE: Final = "seamline.trace"
"""In an ASGI scope: the trace that a request belongs to, from whoever passed it on."""
ROUTE: Final = "seamline.route"
"""In the scope after the app has run: the route that its framework matched, as it is written in the code."""
SWITCHED: Final = 101
LEFT: Final = 499
CANCELED: Final = "canceled"
_PATH_CHARACTERS_MAX: Final = 1024
_ROUTE_CHARACTERS_MAX: Final = 200
_CLASSES: Final = {1: "1xx", 3: "3xx", 4: "4xx", 5: "5xx"}
_STATUS: Final = {LEFT: CANCELED, 501: "unimplemented", 503: "unavailable", 504: "deadline_exceeded"}


def trace_of(headers: Iterable[Header]) -> TraceContext | None:
    """The trace that a stranger's request says it belongs to."""
    found = {name: value for name, value in headers if name == b"traceparent" or name in CARRIED}
    return TraceContext.from_headers(found) if b"traceparent" in found else None


def route_of(scope: Scope) -> str:
    """The route that the app's framework has matched: a template such as ``/items/{id}``, never the path itself."""
    known: str | None = scope.get(ROUTE)
    if known is not None:
        return known
    path: object = getattr(scope.get("route"), "path", None)
    if not isinstance(path, str) or not path.startswith("/"):
        return ""
    root: str = scope.get("root_path", "")
    return f"{root}{path}"[:_ROUTE_CHARACTERS_MAX]


class Asked(NamedTuple):
    """What is told of a request: never its query, nor who sent it from where."""

    method: str
    route: str
    path: str

    @property
    def name(self) -> str:
        return f"{self.method} {self.route}"


def asked(scope: Scope, mount: str) -> Asked:
    """``mount`` is where the app is: its route where its framework does not tell."""
    return Asked(scope.get("method", "WS"), route_of(scope) or f"{mount.rstrip('/')}/*", scope["path"])


def request_span(
    tracer: Tracer,
    trace: TraceContext,
    ids: tuple[int, int],
    ends: tuple[str, str],
    request: Asked,
    status: int,
    started: float,
    error: BaseException | None,
    user: User | None,
) -> None:
    """Record a request that was served, if its trace is recorded or is to be.

    ``ids`` are those of the span and of its parent, ``ends`` who served it and who passed it on.
    """
    seconds = monotonic() - started
    failed = status >= 500
    slow = seconds > tracer.slow_s and status != SWITCHED
    if not trace.sampled and not ((failed or slow) and tracer.keep(trace)):
        return
    facts: dict[str, Any] = {
        "http.request.method": request.method,
        "http.route": request.route,
        "url.path": request.path[:_PATH_CHARACTERS_MAX],
        "http.response.status_code": status,
    }
    if user is not None:
        facts["user.id"] = user.id
    message, events = "", None
    if failed and error is not None:
        message, events = said(error), [exception_event(error, tracer.at_ns(started + seconds))]
    tracer.record(
        trace, ids[0], ids[1], request.name, "server", ends[0], ends[1], started, seconds,
        _STATUS.get(status, "internal") if failed or status == LEFT else "ok", message, facts, events,
    )  # fmt: skip


def class_of(status: int) -> str:
    """The code under which an answer is counted; empty where all is well."""
    return CANCELED if status == LEFT else _CLASSES.get(status // 100, "")
