"""Printing that never holds the supervisor up: whoever reads its output may stop reading."""

from __future__ import annotations

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
                self._stream.write(line + "\n")
                if self._waiting.empty():
                    self._stream.flush()
            except (OSError, ValueError):
                continue  # nobody reads any more; what runs goes on
