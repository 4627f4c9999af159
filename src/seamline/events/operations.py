"""What the command line asks of events in one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seamline.events.runtime import EventsRuntime


class Operations:
    """Answers with what can be written as JSON."""

    def __init__(self, runtime: EventsRuntime) -> None:
        self._runtime = runtime

    async def run(self, operation: str, arguments: dict[str, Any]) -> Any:
        raise NotImplementedError
