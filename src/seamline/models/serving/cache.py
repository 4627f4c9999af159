"""Answers that are kept, so that the same question costs nothing, and those who ask it at once cost one answer.

An answer is kept as the contract's codec writes it: who gets it again gets a copy of their own. Errors are not kept.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from seamline.models.serving.semantic import Similar
from seamline.module.context import current
from seamline.module.contract import MethodSpec
from seamline.module.models import Cache

Key = tuple[str, str, bytes]
"""Method, principal, arguments as they are encoded."""


class Answers:
    """The kept answers of one version of a model.

    Args:
        cache: as it was declared.
        specs: the contract's methods.
        now: seconds that never run backwards.
    """

    def __init__(
        self, cache: Cache, specs: Mapping[str, MethodSpec], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._cache = cache
        self._specs = specs
        self._now = now
        self._kept: OrderedDict[Key, tuple[bytes, float]] = OrderedDict()
        self._bytes = 0
        self._flights: dict[Key, asyncio.Future[None]] = {}
        self._similar = Similar(cache.semantic) if cache.semantic is not None else None
        self.hits = self.misses = self.joined = self.similar = 0

    async def of(self, method: str, arguments: tuple[Any, ...], compute: Callable[[], Awaitable[Any]]) -> Any:
        """The answer to a call: kept, or that of another who asks the same just now, or computed."""
        spec = self._specs[method]
        who = "" if self._cache.shared else principal()
        key = method, who, spec.encode_request(arguments)
        joined = False
        while True:
            kept = self._get(key)
            if kept is not None:
                self.hits += 1
                return spec.result.decode(kept)
            flight = self._flights.get(key)
            if flight is None:
                break
            if not joined:
                joined = True
                self.joined += 1
            # Whoever computes it may fail, or give up: then the next does it.
            await asyncio.wait([flight])
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        try:
            return await self._computed(spec, key, arguments, compute)
        finally:
            del self._flights[key]
            flight.set_result(None)

    async def _computed(
        self, spec: MethodSpec, key: Key, arguments: tuple[Any, ...], compute: Callable[[], Awaitable[Any]]
    ) -> Any:
        similar = self._similar
        if similar is None:
            self.misses += 1
            answer = await compute()
            self._put(key, spec.result.encode(answer))
            return answer
        place = await similar.place(key[0], key[1], arguments)
        found = similar.nearest(place)
        kept = self._get(found) if found is not None else None
        if kept is not None:
            self.similar += 1
            return spec.result.decode(kept)
        self.misses += 1
        answer = await compute()
        self._put(key, spec.result.encode(answer))
        similar.keep(place, key)
        return answer

    def _get(self, key: Key) -> bytes | None:
        entry = self._kept.get(key)
        if entry is None:
            return None
        if entry[1] <= self._now():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return entry[0]

    def _put(self, key: Key, answer: bytes) -> None:
        size_max = self._cache.size_max_mb * 1_048_576
        size = len(answer) + len(key[2])
        if size > size_max:
            return
        if key in self._kept:
            self._drop(key)
        self._kept[key] = answer, self._now() + self._cache.ttl_s
        self._bytes += size
        while len(self._kept) > self._cache.entries or self._bytes > size_max:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Key) -> None:
        answer, _ = self._kept.pop(key)
        self._bytes -= len(answer) + len(key[2])

    def stats(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "entries": len(self._kept),
            "size_mb": round(self._bytes / 1_048_576, 3),
            "hits": self.hits,
            "misses": self.misses,
            "joined": self.joined,
            "similar": self.similar,
        }


def principal() -> str:
    """On whose behalf the call at work is made: a user's, or else that of the module that calls."""
    call = current()
    if call is None:
        return ""
    subject = call.subject
    if subject is None or subject.user is None:
        return f"module:{call.caller}"
    user = subject.user
    return f"user:{user.issuer}|{user.tenant}|{user.id}|{user.client}|{subject.agent}"
