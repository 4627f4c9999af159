"""What the supervisor asks of a room in a worker: its events, sagas, modules or models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seamline.run.admin import RefusedError
from seamline.run.control import AskRoom

if TYPE_CHECKING:
    from seamline.run.replica import Replica


async def ask_room(replica: Replica, room: str, operation: str, arguments: dict[str, Any], wait_s: float) -> Any:
    """Raises RefusedError with the error that comes back, and ControlError where nothing does."""
    found = await replica.ask(AskRoom, wait_s, room=room, operation=operation, arguments=arguments)
    if "error" in found:
        raise RefusedError(found["error"])
    return found["result"]
