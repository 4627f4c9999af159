"""Printing that never holds the supervisor up: whoever reads its output may stop reading."""

from __future__ import annotations

import os
import queue
import threading
from typing import IO

_LINES_MAX = 10_000


class Printer:
    """Writes lines to a stream from a thread of its own; what is too much is dropped, and told of.

    Args:
        stream: where lines go.
        lines_max: how many may wait.
    """

    def __init__(self, stream: IO[str], lines_max: int = _LINES_MAX) -> None:
        self._stream = stream
        self._descriptor = _descriptor_of(stream)
        self._waiting: queue.Queue[str | None] = queue.Queue(lines_max)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="printer", daemon=True)
        self._thread.start()

    def print(self, line: str) -> None:
        """Have ``line`` printed, soon."""
        try:
            if self._dropped:
                self._waiting.put_nowait(f"({self._dropped} lines were dropped: nobody read them)")
                self._dropped = 0
            self._waiting.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self, timeout_s: float = 1.0) -> None:
        """Print what waits, as far as it is read within ``timeout_s``."""
        try:
            self._waiting.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)

    @property
    def idle(self) -> bool:
        """Whether everything was taken off the queue."""
        return self._waiting.empty()

    def _run(self) -> None:
        while (line := self._waiting.get()) is not None:
            try:
                self._write(line + "\n")
            except (OSError, ValueError):
                continue  # nobody reads any more; what runs goes on

    def _write(self, text: str) -> None:
        if self._descriptor is None:
            self._stream.write(text)
            self._stream.flush()
            return
        # Not through the stream: a thread that waits in its write holds its lock, and the interpreter, which
        # flushes it when it ends, would wait for that for ever.
        left = text.encode(errors="replace")
        while left:
            left = left[os.write(self._descriptor, left) :]


def _descriptor_of(stream: IO[str]) -> int | None:
    try:
        stream.flush()
        return stream.fileno()
    except (OSError, ValueError):  # a stream in memory has none
        return None
