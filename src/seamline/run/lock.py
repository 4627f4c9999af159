"""One supervisor for a data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from seamline.run.errors import AlreadyRunningError


class DataLock:
    """Holds ``run/supervisor.lock``; the kernel lets go of it when the process ends in whichever way."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._path = data / "run" / "supervisor.lock"
        self._descriptor = -1

    def __enter__(self) -> Self:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._descriptor, 32).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise AlreadyRunningError(
                f"this application runs already, supervised by pid {holder or 'unknown'}",
                "Stop it with `seamline stop`, or name another data directory with --data.",
                place=str(self._data),
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
