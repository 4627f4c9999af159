"""DuckDB in a process of its own: with a bound on its memory and its time, and gone when nobody asks any more.

A job is a line of JSON, its answer a length and MessagePack. What DuckDB takes (100 MB and more, which it does not give
back) the observing process never holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import selectors
import struct
import subprocess
import sys
import threading
import time
from typing import Any, Final

import msgspec

from seamline.observe.errors import HistoryError, QueryTooLongError

MODULE: Final = "seamline.observe.store.duck"
IDLE_S: Final = 30.0
"""A child that is not asked for so long ends."""
_LENGTH: Final = struct.Struct(">I")


class Child:
    """One child process, begun when it is first asked. Thread-safe; one question at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ask(self, job: dict[str, Any], timeout_s: float) -> Any:
        """Raises QueryTooLongError when it takes longer, and HistoryError for what DuckDB says."""
        until = time.monotonic() + timeout_s
        if not self._lock.acquire(timeout=timeout_s):
            raise too_long(timeout_s)
        try:
            for attempt in (1, 2):
                process = self._process
                if process is None or process.poll() is not None:
                    self._drop()
                    process = self._process = _start()
                try:
                    answer = self._exchange(process, job, until, timeout_s)
                except (BrokenPipeError, EOFError) as error:
                    self._drop()
                    if attempt == 2:
                        raise HistoryError("DuckDB ended while it was asked", "Ask for a shorter time") from error
                    continue  # it had ended for want of questions
                return _taken(answer)
            raise AssertionError
        finally:
            self._lock.release()

    def _exchange(self, process: subprocess.Popen[bytes], job: dict[str, Any], until: float, timeout_s: float) -> bytes:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
        try:
            (length,) = _LENGTH.unpack(_read(process.stdout.fileno(), _LENGTH.size, until))
            return _read(process.stdout.fileno(), length, until)
        except TimeoutError:
            self._drop()
            raise too_long(timeout_s) from None

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()


def too_long(timeout_s: float) -> QueryTooLongError:
    return QueryTooLongError(f"the question took more than {timeout_s:g} s", "Ask for a shorter time, or a module")


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", MODULE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _read(file: int, count: int, until: float) -> bytes:
    data = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(file, selectors.EVENT_READ)
        while len(data) < count:
            left = until - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise TimeoutError
            chunk = os.read(file, min(count - len(data), 1 << 20))
            if not chunk:
                raise EOFError
            data += chunk
    return bytes(data)


def _taken(answer: bytes) -> Any:
    found = msgspec.msgpack.decode(answer)
    if "error" in found:
        raise HistoryError(found["error"], "See whether the files in the folder `history` are whole")
    return found["answer"]


async def run_child(job: dict[str, Any], timeout_s: float) -> Any:
    """One job, in a child of its own that ends with it, or when this is cancelled."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", MODULE,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            said, _ = await process.communicate(json.dumps(job).encode() + b"\n")
    except TimeoutError:
        raise HistoryError(f"DuckDB took more than {timeout_s:g} s", "It is tried again") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if len(said) < _LENGTH.size:
        raise HistoryError("DuckDB ended before it was done", "It is tried again")
    return _taken(said[_LENGTH.size :])
