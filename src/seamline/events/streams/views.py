"""Views of other modules, queried with SQL: ``Views`` is asked for by type and calls the owning module over the mesh.

Every module that has views serves a contract of the platform's, one class for each module; policy is asked for
``Action::"views"`` on the owning module, as it is asked for ``Action::"http"``.
"""

# ruff: noqa: PIE790  # the dots tell a type checker that a method has no body here

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any, Final, cast

import msgspec

from seamline.events.streams.aggregates import Cell
from seamline.module.contract import Contract, readonly, timeout
from seamline.module.values import Fault

ACTION: Final = "views"
QUERY_TIMEOUT_S: Final = 5.0


class QueryRefused(Fault):
    """The query cannot be answered."""

    reason: str
    remedy: str


class ViewsContract(Contract):
    """Read-only SQL on a module's views."""

    action = ACTION

    @timeout(QUERY_TIMEOUT_S)
    @readonly
    async def query(self, statement: str, parameters: str) -> str:
        """Rows as JSON, a list of objects; ``parameters`` is a JSON object. Raises ``QueryRefused``."""
        ...


@functools.cache
def views_contract(module: str) -> type[ViewsContract]:
    """The contract that serves the views of ``module``; the same class each time."""
    return type(f"{module}_views", (ViewsContract,), {"__module__": __name__})


class Views:
    """Queries views, of this module and of others.

    ::

        rows = await views.query(
            "analytics", "SELECT start_ms, revenue FROM sales_by_minute WHERE start_ms >= :since", since=an_hour_ago
        )

    Args:
        modules: which there are.
        stub: makes the asking module's stub of the views of a module.
    """

    def __init__(self, modules: Collection[str], stub: Callable[[str], ViewsContract]) -> None:
        self._modules = modules
        self._stub = stub

    async def query(self, module: str, statement: str, **parameters: Cell | bool | datetime) -> list[dict[str, Cell]]:
        """Run one SELECT on the views of ``module``.

        Args:
            statement: in the SQL of the module's store. Values come as parameters: ``:name``.
            parameters: a datetime (aware) becomes milliseconds since the epoch, as views have them.

        Raises:
            QueryRefused: it is not one SELECT on views, has a mistake, or its answer is too large or too slow.
            PermissionDenied: policy does not let this module see those views.
        """
        given = {name: _plain(value) for name, value in parameters.items()}
        if module not in self._modules:
            raise QueryRefused(reason=f"there is no module {module!r}", remedy="Name the module that owns the view.")
        answer = await self._stub(module).query(statement, msgspec.json.encode(given).decode())
        return cast("list[dict[str, Cell]]", msgspec.json.decode(answer))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise QueryRefused(
                reason=f"the time {value.isoformat()} has no time zone", remedy="Give it one: datetime.now(UTC)."
            )
        return round(value.timestamp() * 1000)
    return value
