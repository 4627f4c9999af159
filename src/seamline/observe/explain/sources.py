"""What explanation asks of the store: traces and profiles of those that it suspects."""

from __future__ import annotations

from typing import Final

from seamline.kernel.signal import log
from seamline.observe.errors import ObserveError
from seamline.observe.records import Span
from seamline.observe.store import TelemetryReader
from seamline.observe.store.query import TraceQuery

_TRACES_MAX: Final = 12
_LOOKED_AT_MAX: Final = 60
_log = log.get("seamline.observe")


class Sources:
    """:class:`Traces` and :class:`Profiles` from a store. What it cannot read is not there."""

    def __init__(self, reader: TelemetryReader) -> None:
        self._reader = reader

    def traces(self, module: str, *, failed: bool, since_ns: int, until_ns: int) -> list[list[Span]]:
        """Failed ones, or the slowest among the newest."""
        status = "failed" if failed else ""
        query = TraceQuery(module=module, status=status, since_ns=since_ns, until_ns=until_ns, limit=_LOOKED_AT_MAX)
        try:
            found = self._reader.traces(query).items
            if not failed:
                found = sorted(found, key=lambda each: -each.duration_ns)
            return [self._reader.trace(each.trace_id) for each in found[:_TRACES_MAX]]
        except ObserveError as error:
            _log.warning("no traces of %s to explain by: %s", module, error)
            return []

    def profile(self, module: str, since_ns: int, until_ns: int) -> list[tuple[str, int]]:
        try:
            return self._reader.profile(module, since_ns, until_ns)
        except ObserveError as error:
            _log.warning("no profile of %s to explain by: %s", module, error)
            return []
