"""News for whoever is looking: what has just come in, told to each who listens.

A listener that is too slow misses the oldest, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Literal

Topic = Literal["windows", "logs", "incidents", "marks"]
_WAITING_MAX = 256


class Live:
    """Spreads news by topic: ``windows`` a :class:`~seamline.observe.windows.Window`, ``logs`` a list of
    :class:`~seamline.observe.records.Log`, ``incidents`` an :class:`~seamline.observe.incidents.Incident`, ``marks`` a
    :class:`~seamline.observe.records.Mark`.
    """

    def __init__(self) -> None:
        self._listeners: dict[Topic, set[asyncio.Queue[Any]]] = {}

    def tell(self, topic: Topic, news: Any) -> None:
        for queue in self._listeners.get(topic, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(news)

    def heard(self, topic: Topic) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners.get(topic))

    @contextmanager
    def listen(self, *topics: Topic) -> Generator[asyncio.Queue[Any]]:
        """What is told from now on."""
        queue: asyncio.Queue[Any] = asyncio.Queue(_WAITING_MAX)
        for topic in topics:
            self._listeners.setdefault(topic, set()).add(queue)
        try:
            yield queue
        finally:
            for topic in topics:
                self._listeners[topic].discard(queue)
