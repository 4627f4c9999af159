"""What the supervisor keeps of trust: whose keys are whose.

It outlives it, in ``<data>/identity``: a saga may wait for weeks with a proof that a key of long ago has signed.
Workers are told of each change; a key of long ago they ask for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from seamline.kernel.clock import Clock, now_ms

KEPT_S = 100 * 86_400
"""How long a key is kept after its certificate has ended: longer than anything waits that it signed."""

Key = tuple[str, str, str, int, int]
"""``mesh.identity.keyring.KnownKey``, which is heavy to import."""


class Lines:
    """A file of JSON lines that only grows; it is written anew when it is opened."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Iterator[Any]:
        if not self._path.exists():
            return
        with self._path.open(encoding="utf-8") as file:
            for line in file:
                try:
                    yield json.loads(line)
                except ValueError:
                    continue  # the last line of a process that was killed

    def replace(self, entries: Iterable[Any]) -> None:
        new = self._path.with_suffix(".new")
        self._write(new, entries, os.O_TRUNC)
        new.replace(self._path)

    def append(self, entries: Iterable[Any]) -> None:
        self._write(self._path, entries, os.O_APPEND)

    def _write(self, path: Path, entries: Iterable[Any], how: int) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | how, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  # with the mode it must have
            file.writelines(json.dumps(entry) + "\n" for entry in entries)
            file.flush()
            os.fsync(descriptor)


class KeyBook:
    """The public keys of every certificate that was issued."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._lines = Lines(folder / "keys.jsonl")
        self._clock = clock
        self._current: dict[str, Key] = {}
        self._opened = False

    def current(self) -> list[Key]:
        """Those whose certificates have not ended."""
        self._open()
        now = now_ms(self._clock) // 1000
        self._current = {kid: key for kid, key in self._current.items() if key[4] >= now}
        return list(self._current.values())

    def add(self, keys: Iterable[Key]) -> None:
        self._open()
        new = list(keys)
        self._lines.append(new)
        self._current.update({key[0]: key for key in new})

    def find(self, kid: str) -> Key | None:
        """A key of any age."""
        known = self._current.get(kid)
        return known or next((_key(each) for each in self._lines.read() if each[0] == kid), None)

    def _open(self) -> None:
        if self._opened:
            return
        self._opened = True
        now = now_ms(self._clock) // 1000
        keys = {key[0]: key for key in map(_key, self._lines.read()) if key[4] + KEPT_S > now}
        if keys:
            self._lines.replace(keys.values())
        self._current = {kid: key for kid, key in keys.items() if key[4] >= now}


def _key(found: Any) -> Key:
    kid, module, point, begins, ends = found
    return str(kid), str(module), str(point), int(begins), int(ends)
