"""What a database's statements cost: counted always, as spans where the trace at work is recorded.

Counts are edges of the module to its database (``sql``), one for each kind of statement. Waiting is no part of a
statement: for the writer, for a reader or for a connection it is ``seamline.db.wait``.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Literal

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from seamline.kernel.signal import here
from seamline.kernel.signal.measures import Histogram, Measure
from seamline.kernel.signal.metrics import OTHER, EdgeStats, Flows
from seamline.kernel.signal.trace import Tracer, new_span_id
from seamline.kernel.store.statement import Shape, shape_of

SUMMARIES_MAX: Final = 300
"""Kinds of statements of one database that are told apart; the others are counted as one."""

SHOWN_S: Final = 0.001
"""Shorter waits, and shorter work of the platform, are counted and are no spans."""

_TEXTS_MAX: Final = 2_000
_WAIT_BOUNDS_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
_COMMIT: Final = Shape("COMMIT", "COMMIT", "COMMIT")

Awaited = Literal["writer", "reader", "connection"]


class Statements:
    """Of one module's database. ``tracer`` is set by who hosts the module; until then nothing is told."""

    def __init__(self, module: str, system: Literal["sqlite", "postgresql"]) -> None:
        self.module = module
        self.system = system
        self.before: list[Callable[[], None]] = []
        """Called as a part of each statement, on SQLAlchemy's greenlet; for whoever slows a database down to see who
        notices."""
        self.tracer: Tracer | None = None
        self._flows = Flows()
        self._known: dict[str, tuple[EdgeStats, Shape]] = {}
        self._summaries: set[str] = set()
        self._waits: dict[Awaited, Histogram] = {}
        self._commits = self._stats(_COMMIT.summary)

    def tell(self, tracer: Tracer) -> None:
        """Count and record there from now on."""
        self.tracer = tracer
        self._flows = tracer.flows
        self._known.clear()
        self._commits = self._stats(_COMMIT.summary)

    def ran(self, sql: str, began: float, rows: int, error: BaseException | None = None) -> None:
        """A statement that began then (of ``time.monotonic``) has ended."""
        seconds = monotonic() - began
        stats, shape = self._known.get(sql) or self._learn(sql)
        stats.record(seconds, _code(error))
        self._trace(shape, began, seconds, rows, error)

    def worked(self, work: Callable[..., Any], began: float) -> None:
        """The platform's own ``work`` on SQLite's own connection has ended."""
        name = getattr(work, "__qualname__", type(work).__name__)
        seconds = monotonic() - began
        known = self._known.get(name)
        if known is None:
            known = self._keep(name, Shape("WORK", f"seamline {name.partition('.<locals>')[0]}", ""))
        known[0].record(seconds)
        if seconds >= SHOWN_S:
            self._trace(known[1], began, seconds, -1, None)

    def committed(self, began: float, error: BaseException | None = None) -> None:
        """The disk has a commit, which may be of many transactions."""
        self._commits.record(monotonic() - began, _code(error))

    def waited(self, what: Awaited, began: float) -> None:
        """A transaction had to wait for its turn or its connection."""
        seconds = monotonic() - began
        histogram = self._waits.get(what)
        if histogram is None:
            histogram = self._waits[what] = Histogram(_WAIT_BOUNDS_S)
        histogram.add(seconds)
        if seconds >= SHOWN_S:
            self._trace(Shape("", f"wait for {what}", ""), began, seconds, -1, None)

    def take(self) -> list[Measure]:
        """How long was waited since it was taken last."""
        attributes = {"db.system.name": self.system}
        found = [
            histogram.take("seamline.db.wait", self.module, "s", {**attributes, "seamline.db.wait.for": what})
            for what, histogram in self._waits.items()
        ]
        return [measure for measure in found if measure is not None]

    def listen(self, engine: AsyncEngine) -> None:
        """Hear of every statement of a PostgreSQL engine."""

        def begin(_: Any, __: Any, ___: str, ____: Any, context: Any, _____: bool) -> None:
            context.seamline_began = monotonic()
            for hold_up in self.before:
                hold_up()

        def end(_: Any, cursor: Any, sql: str, __: Any, context: Any, ___: bool) -> None:
            self.ran(sql, context.seamline_began, cursor.rowcount)

        def failed(failure: Any) -> None:
            began = getattr(failure.execution_context, "seamline_began", None)
            if began is not None and failure.statement is not None:
                self.ran(failure.statement, began, -1, failure.original_exception)

        sync = engine.sync_engine
        event.listen(sync, "before_cursor_execute", begin)
        event.listen(sync, "after_cursor_execute", end)
        event.listen(sync, "handle_error", failed)

    def _learn(self, sql: str) -> tuple[EdgeStats, Shape]:
        return self._keep(sql, shape_of(sql, quotes_values=self.system == "sqlite"))

    def _keep(self, name: str, shape: Shape) -> tuple[EdgeStats, Shape]:
        if len(self._known) >= _TEXTS_MAX:
            self._known.clear()
        self._known[name] = known = self._stats(shape.summary), shape
        return known

    def _stats(self, summary: str) -> EdgeStats:
        if summary not in self._summaries:
            if len(self._summaries) >= SUMMARIES_MAX:
                summary = OTHER
            self._summaries.add(summary)
        return self._flows.stats(self.module, self.system, summary, "sql")

    def _trace(self, shape: Shape, began: float, seconds: float, rows: int, error: BaseException | None) -> None:
        tracer, call = self.tracer, here.call()
        if tracer is None or call is None:
            return
        trace = call.origin
        if trace is None or not (trace.sampled or (seconds > tracer.slow_s and tracer.keep(trace))):
            return
        attributes: dict[str, Any] = {"db.system.name": self.system, "db.namespace": self.module}
        if shape.text:
            attributes |= {"db.operation.name": shape.operation, "db.query.summary": shape.summary}
            attributes["db.query.text"] = shape.text
        if rows >= 0:
            attributes["db.response.returned_rows"] = rows
        if error is not None:
            attributes["error.type"] = type(error).__name__
        tracer.record(
            trace, new_span_id(), call.span_id(), shape.summary, "client", self.module, self.system, began, seconds,
            _code(error) or "ok", "", attributes,
        )  # fmt: skip


def _code(error: BaseException | None) -> str:
    """As the Connect protocol calls what happened; never what the driver says, which quotes values."""
    if error is None:
        return ""
    if not isinstance(error, Exception):
        return "canceled"
    return "already_exists" if "IntegrityError" in {kind.__name__ for kind in type(error).__mro__} else "internal"
