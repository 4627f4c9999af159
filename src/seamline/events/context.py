"""What a handler can know of the event it handles."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EventContext:
    """Ask for it by type, beside the event::

    @module.on(OrderPlaced, outside=True)
    async def send(event: OrderPlaced, context: EventContext, mail: MailServer) -> None:
        await mail.send(..., message_id=context.idempotency_key)
    """

    id: str
    """Unique within its source."""
    source: str
    """The module that published it."""
    key: str
    """Events with one key come in order; empty when it has none."""
    time: datetime
    """When it was published, in UTC."""
    attempt: int
    """1 at first; counted anew when the process is."""
    headers: Mapping[str, str]
    idempotency_key: str
    """The same however often the event is handed to this consumer group."""
    replayed: bool = False
    """It comes again because somebody asked for a replay."""
