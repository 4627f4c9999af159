"""It crashes, leaks and hogs the CPU on demand."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from seamline import batched
from similar.shaky import NoSuchWord


class ShakyModel:
    def __init__(self) -> None:
        self.hoard: list[bytes] = []

    def pid(self) -> int:
        return os.getpid()

    @batched
    def double(self, number: list[int]) -> list[int | Exception]:
        if -1 in number:
            _die("segfault")
        return [ValueError("seven") if each == 7 else 2 * each for each in number]

    def crash(self, how: str, times: int, where: str) -> int:
        """Die in the first ``times`` calls, which are counted in the file ``where``."""
        crashes = Path(where)
        before = int(crashes.read_text()) if crashes.exists() else 0
        crashes.write_text(str(before + 1))
        if before < times:
            _die(how)
        return before

    def crash_once(self, how: str) -> int:
        _die(how)
        return 0

    def grow(self, megabytes: int) -> int:
        self.hoard.append(os.urandom(megabytes << 20))
        return os.getpid()

    def spin(self, seconds: float) -> float:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return seconds

    def look_up(self, word: str) -> str:
        raise NoSuchWord(word=word)

    def count(self, to: int, die_at: int = -1) -> Iterator[int]:
        for number in range(to):
            if number == die_at:
                _die("kill")
            yield number


class Unloadable(ShakyModel):
    def load(self) -> None:
        raise FileNotFoundError("weights.safetensors")


def _die(how: str) -> None:
    if how == "segfault":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)
