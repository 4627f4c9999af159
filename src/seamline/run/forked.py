"""The fork server's process: imports what workers need, then copies itself for each that is asked for.

It takes one message a worker, its :class:`~seamline.run.control.WorkerOptions` with the descriptors beside them, and
answers with the worker's process id. It ends with the supervisor.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from seamline.kernel.children import call_oneself, die_with_parent
from seamline.run import worker
from seamline.run.control import MESSAGE_BYTES_MAX, WorkerOptions
from seamline.run.errors import Exit
from seamline.run.fork_server import PID, READY

_IMPORTED = (
    "alembic.autogenerate",
    "alembic.script",
    "jinja2",
    "pydantic.dataclasses",
    "pydantic.fields",
    "seamline.events",
    "seamline.kernel.codec.by_pydantic",
    "seamline.kernel.store",
    "seamline.gateway.asgi",
    "seamline.models.chat",
    "seamline.run.hosting",
    "seamline.sagas",
    "seamline.sagas.kinds",
    "seamline.sagas.once",
    "starlette.applications",
    "starlette.responses",
    "uvloop",
)
"""Of the platform alone: an application's own libraries may do what no copy survives."""
_DESCRIPTORS_MAX = 8


def main(connection: socket.socket, supervisor_pid: int) -> int:
    """Serve until the supervisor is gone; the exit status, in the server and in each of its copies."""
    if not die_with_parent(supervisor_pid):
        return Exit.ORPHANED
    call_oneself("seamline forks")
    for name in _IMPORTED:
        importlib.import_module(name)
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        print("the fork server has a thread, and so must not fork", file=sys.stderr)  # noqa: T201  # nothing logs yet
        return Exit.START_FAILED
    gc.collect()
    gc.freeze()  # what is here now is never looked through, and so stays shared
    connection.send(READY)
    while True:
        body, descriptors, _, _ = socket.recv_fds(connection, MESSAGE_BYTES_MAX, _DESCRIPTORS_MAX)
        if not body:
            return Exit.STOPPED
        between = os.fork()
        if not between:
            return _fork_worker(connection, supervisor_pid, body, descriptors)
        os.waitpid(between, 0)
        for descriptor in descriptors:
            os.close(descriptor)


def _fork_worker(connection: socket.socket, supervisor_pid: int, body: bytes, descriptors: Sequence[int]) -> int:
    """Leave a worker without its parent; the exit status of whoever returns."""
    between = os.getpid()
    try:
        if os.fork():
            return Exit.STOPPED
    except OSError:
        connection.send(PID.pack(0))
        return Exit.START_FAILED
    while os.getppid() == between:
        time.sleep(0.0005)
    ours = die_with_parent(supervisor_pid)
    connection.send(PID.pack(os.getpid() if ours else 0))
    connection.close()
    return _work(body, descriptors) if ours else Exit.ORPHANED


def _work(body: bytes, descriptors: Sequence[int]) -> int:
    """Be the worker, once the supervisor says so; the exit status."""
    begin, output, mesh, public, *ai = descriptors
    if not os.read(begin, 1):
        return Exit.ORPHANED
    os.close(begin)
    os.setpgid(0, 0)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)
    given = msgspec.json.decode(body, type=WorkerOptions)
    call_oneself(f"{given.workload}#{given.replica}" if given.replica else given.workload)
    return worker.main(msgspec.structs.replace(given, mesh=mesh, public=public, ai=ai[0] if ai else -1))


if __name__ == "__main__":
    worker.leave(main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])))
