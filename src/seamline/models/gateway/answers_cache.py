"""Answers that are given again to who asked the same, where the caller wants none but the likeliest words.

Exact only, and never across callers: a key's user and tenant each have their own. What is alike and not the same is
for a model's own cache (``Cache(semantic=...)``).
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import Any, Final

import msgspec

from seamline.kernel.clock import Clock, SystemClock
from seamline.models.chat import ChatAnswer, ChatRequest
from seamline.models.gateway.keys import Caller

ENTRIES: Final = 10_000
BYTES_MAX: Final = 64 * 1024 * 1024
_ENTRY_BYTES: Final = 700
"""What an entry takes besides its text, about."""
_ENDED: Final = frozenset({"stop", "tool_calls"})


class AnswersCache:
    """Of one process.

    Args:
        entries: kept at most, and no more of them than ``bytes_max`` holds; those asked for longest ago go first.
    """

    def __init__(self, entries: int = ENTRIES, bytes_max: int = BYTES_MAX, *, clock: Clock | None = None) -> None:
        self._entries = entries
        self._bytes_max = bytes_max
        self._clock = clock or SystemClock()
        self._kept: OrderedDict[bytes, tuple[float, int, ChatAnswer]] = OrderedDict()
        self._bytes = 0
        self.hits = self.misses = 0

    @staticmethod
    def key(who: Caller, request: ChatRequest) -> bytes | None:
        """What the same caller's same question has in common. None is for questions that may be answered differently
        each time: those that do not say ``temperature=0``."""
        if request.temperature != 0:
            return None
        asked = msgspec.msgpack.encode((who.key.id, who.user, who.tenant, who.agent, request))
        return sha256(asked).digest()

    def get(self, key: bytes) -> ChatAnswer | None:
        entry = self._kept.get(key)
        if entry is None or entry[0] <= self._clock.monotonic():
            self.misses += 1
            if entry is not None:
                self._drop(key)
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return entry[2]

    def put(self, key: bytes, answer: ChatAnswer, ttl_s: float) -> None:
        """Keep an answer that came to its end; others are not kept."""
        if answer.finish not in _ENDED or ttl_s <= 0:
            return
        said = answer.message
        size = _ENTRY_BYTES + 4 * len(said.content) + sum(4 * len(call.arguments) for call in said.tool_calls)
        if size > self._bytes_max:
            return
        if key in self._kept:
            self._drop(key)
        self._kept[key] = self._clock.monotonic() + ttl_s, size, answer
        self._bytes += size
        while len(self._kept) > self._entries or self._bytes > self._bytes_max:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        self._bytes -= self._kept.pop(key)[1]

    def stats(self) -> dict[str, Any]:
        return {"entries": len(self._kept), "bytes": self._bytes, "hits": self.hits, "misses": self.misses}
