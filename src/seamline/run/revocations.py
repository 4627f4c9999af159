"""What is no longer good, as the supervisor keeps it: on disk before anybody hears of it, then told to every worker.

An entry ends when whatever it voids has expired by itself, so the list is as long as what is revoked and not yet over.
A worker that is cut off from the supervisor goes on with what it has heard: what reaches it from elsewhere is proven
by tokens that end within a minute, and to stop serving would make the supervisor's health everybody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from seamline.kernel.clock import Clock, now_ms
from seamline.run.errors import ControlError
from seamline.run.trust import Lines

_REVOCABLE = ("session", "user", "client", "device", "module", "token")
_OF_USERS = frozenset(_REVOCABLE) - {"module"}
_DEAD_LINES_MAX = 1000
_PER_MESSAGE = 5000
_ID_CHARACTERS_MAX = 1000


class RevocationBook:
    """What was revoked; each entry in the words of ``mesh.identity.revocation.Revocation``."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._lines = Lines(folder / "revocations.jsonl")
        self._clock = clock
        self._known: dict[tuple[str, str], dict[str, Any]] | None = None
        self._written = self._kept = 0
        """Lines in the file now, and when it was last written anew."""

    def entries(self) -> list[dict[str, Any]]:
        """Those that still refuse something."""
        now = now_ms(self._clock)
        return [each for each in self._open().values() if _holds(each, now)]

    def parts(self) -> Iterator[list[dict[str, Any]]]:
        """:meth:`entries`, in parts that fit into a message."""
        every = self.entries()
        for start in range(0, len(every), _PER_MESSAGE):
            yield every[start : start + _PER_MESSAGE]

    def add(self, entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Keep entries, on disk before it returns; as they are kept. Of two about the same, the stricter holds."""
        from seamline.mesh.identity.revocation import Revocation, stricter  # heavy, and loaded with the authority

        known = self._open()
        now = now_ms(self._clock)
        kept: list[dict[str, Any]] = []
        for each in entries:
            entry = Revocation(**each).completed(now)
            before = known.get((entry.kind, entry.id))
            if before is not None and not entry.lifted and _holds(before, now):
                entry = stricter(Revocation(**before), entry)
            kept.append(msgspec.to_builtins(entry))
        self._lines.append(kept)
        self._written += len(kept)
        known.update({(each["kind"], each["id"]): each for each in kept})
        if self._written > 2 * self._kept + _DEAD_LINES_MAX:
            self._compact()
        return kept

    def set_apart(self, module: str) -> str | None:
        """Why a module is quarantined; None when it is not."""
        entry = self._open().get(("module", module))
        if entry is None or not _holds(entry, now_ms(self._clock)):
            return None
        return str(entry["reason"]) or "quarantined"

    def _open(self) -> dict[tuple[str, str], dict[str, Any]]:
        if self._known is None:
            self._known = {(each["kind"], each["id"]): each for each in self._lines.read()}
            self._compact()
        return self._known

    def _compact(self) -> None:
        assert self._known is not None
        now = now_ms(self._clock)
        kept = {key: each for key, each in self._known.items() if _holds(each, now)}
        if kept or self._known:
            self._lines.replace(kept.values())
        self._known = kept
        self._written = self._kept = len(kept)


def checked(asked: dict[str, Any], modules: Iterable[str]) -> dict[str, Any]:
    """An entry as somebody asks for it. Raises ControlError."""
    kind, name = asked.get("kind"), asked.get("id")
    if kind not in _REVOCABLE or not isinstance(name, str) or not 0 < len(name) <= _ID_CHARACTERS_MAX:
        raise ControlError(f"{kind} {name!r} cannot be revoked", f"Give an id, and a kind of {', '.join(_REVOCABLE)}.")
    if kind == "module" and name not in modules:
        raise ControlError(f"there is no module {name!r}", f"There are {', '.join(modules)}.")
    times = {key: int(asked[key]) for key in ("before", "until") if key in asked}
    lifted = bool(asked.get("lifted", False))
    return {"kind": kind, "id": name, "reason": str(asked.get("reason", "")), "lifted": lifted, **times}


def of_users(entries: Iterable[dict[str, Any]]) -> bool:
    """Whether these are what the gateway may ask for: about who signs in, not about modules."""
    return all(entry.get("kind") in _OF_USERS for entry in entries)


def _holds(entry: dict[str, Any], now: int) -> bool:
    return not entry["lifted"] and (not entry["until"] or entry["until"] > now)
