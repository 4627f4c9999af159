"""Calls in which a model's process died, so that none does so again and again."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from typing import Final

from seamline.models.serving.errors import PoisonError, WorkerLost

_KEPT_S: Final = 600.0
_KEPT_MAX: Final = 1000
_DEATHS_MAX: Final = 2


class Suspects:
    """Of one model; bounded, and forgotten after some minutes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._deaths: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self.refused = 0

    def knows(self, method: str, body: bytes) -> bool:
        """Whether a process died in such a call: it is made alone, so that it takes nobody along."""
        return bool(self._deaths) and self._count(_mark(method, body)) > 0

    def note(self, method: str, body: bytes, lost: WorkerLost) -> None:
        """A process died in it, perhaps by its fault."""
        if lost.blameless:
            return
        mark = _mark(method, body)
        self._deaths[mark] = self._count(mark) + 1, time.monotonic()
        self._deaths.move_to_end(mark)
        if len(self._deaths) > _KEPT_MAX:
            self._deaths.popitem(last=False)

    def clear(self, method: str, body: bytes) -> None:
        """It was answered."""
        if self._deaths:
            self._deaths.pop(_mark(method, body), None)

    def poison(self, method: str, body: bytes) -> PoisonError | None:
        """What the call is refused with, if it has to be."""
        if not self._deaths or self._count(_mark(method, body)) < _DEATHS_MAX:
            return None
        self.refused += 1
        return PoisonError(
            f"a call of {method} has ended the process of {self._name} {_DEATHS_MAX} times",
            "It is refused for ten minutes.",
        )

    def check(self, method: str, body: bytes) -> None:
        """Raises PoisonError."""
        poison = self.poison(method, body)
        if poison is not None:
            raise poison

    def _count(self, mark: bytes) -> int:
        deaths, since = self._deaths.get(mark, (0, 0.0))
        return deaths if time.monotonic() - since < _KEPT_S else 0


def _mark(method: str, body: bytes) -> bytes:
    return hashlib.blake2b(method.encode() + b"\0" + body, digest_size=16).digest()
