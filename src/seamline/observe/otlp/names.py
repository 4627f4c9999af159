"""What services that are not ours are called here.

They say their names themselves. One that says the name of a module of ours is marked, and so is never taken for it; one
that says a new name each time gets none of its own once there are enough.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Final, Generic, TypeVar

from seamline.observe.otlp.bounds import SERVICES_MAX

MARK: Final = "otlp:"
"""Before the name of a foreign service that is also the name of a module. No module's name has a colon."""
OTHER: Final = MARK + "other"
RESERVED: Final = frozenset({"gateway", "seamline", "supervisor"})
"""Parts of ours that are told of beside modules."""
UNNAMED: Final = "unknown_service"
_CHARACTERS_MAX: Final = 80
_IDLE_NS: Final = 3600 * 10**9

K = TypeVar("K", bound=Hashable)


class Places(Generic[K]):
    """So many at a time; who has not been heard of for an hour makes room."""

    def __init__(self, places: int, idle_ns: int = _IDLE_NS) -> None:
        self._places = places
        self._idle_ns = idle_ns
        self._seen: dict[K, int] = {}
        self._swept_ns = 0

    def __len__(self) -> int:
        return len(self._seen)

    def admit(self, key: K, now_ns: int) -> bool:
        if key not in self._seen and len(self._seen) >= self._places and not self._sweep(now_ns):
            return False
        self._seen[key] = now_ns
        return True

    def _sweep(self, now_ns: int) -> bool:
        """Looks through all at most once a second: a flood of new names must not cost that each time."""
        if now_ns - self._swept_ns < 10**9:
            return False
        self._swept_ns = now_ns
        self._seen = {key: at for key, at in self._seen.items() if now_ns - at < self._idle_ns}
        return len(self._seen) < self._places


class Names:
    """Gives foreign services and peers their names.

    Args:
        own: the names that only our own processes may have.
    """

    def __init__(self, own: Collection[str]) -> None:
        self._own = RESERVED.union(own)
        self._services: Places[str] = Places(SERVICES_MAX)
        self._peers: Places[str] = Places(SERVICES_MAX)

    def service(self, told: str, now_ns: int) -> str:
        """Of one who speaks."""
        name = clean(told) or UNNAMED
        if name in self._own:
            name = MARK + name
        return name if self._services.admit(name, now_ns) else OTHER

    def peer(self, told: str, now_ns: int) -> str:
        """Of one who is spoken of: a foreign service may well call a module of ours."""
        name = clean(told)
        if not name or name in self._own:
            return name
        return name if self._peers.admit(name, now_ns) else OTHER


def clean(told: str) -> str:
    return "".join(c if c.isprintable() else " " for c in told[:_CHARACTERS_MAX]).strip()
