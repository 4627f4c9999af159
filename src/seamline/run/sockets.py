"""Sockets the supervisor opens: Unix ones under the data directory, the mesh's and the public one."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from seamline.run.errors import PortTakenError, RunError

BACKLOG = 2048
_UNIX_PATH_MAX = 100
_CREDENTIALS = struct.Struct("3i")


class Peer(NamedTuple):
    """Who is at the other end of a Unix socket, as the kernel says."""

    pid: int
    uid: int


def peer_of(connection: socket.socket) -> Peer:
    """The process that connected, by SO_PEERCRED."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return Peer(pid, uid)


@contextlib.contextmanager
def unix_address(path: Path) -> Generator[str]:
    """An address for ``path`` that fits: the kernel takes 107 bytes, and data directories can be deeper."""
    if len(os.fsencode(path)) <= _UNIX_PATH_MAX:
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


def listen_unix(path: Path) -> socket.socket:
    """A listening Unix socket that only this user can open. The caller holds the data directory's lock."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with unix_address(path) as address:
            listener.bind(address)
        path.chmod(0o600)
        listener.listen(64)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise RunError(f"{str(path)!r} cannot be made a socket ({error.strerror})") from error
    return listener


def listen_mesh() -> socket.socket:
    """A listening socket on a free port of the loopback."""
    return _listen(socket.AF_INET, "127.0.0.1", 0)


def listen_public(host: str, port: int) -> socket.socket:
    """The public listening socket. Raises PortTakenError, which names who holds the port where that can be seen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return _listen(family, host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            holder = _holder(port)
            raise PortTakenError(
                f"port {port} is in use{f' by {holder}' if holder else ''}",
                "Stop it, or name another address with --listen or listen = ... under [gateway].",
                place=f"{host}:{port}",
            ) from error
        raise RunError(
            f"cannot listen on {host}:{port} ({error.strerror or error})",
            "Name an address of this machine with listen = ... under [gateway].",
        ) from error


def _listen(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _holder(port: int) -> str:
    """``pid 12 (name)`` of the process that listens on ``port``; empty where /proc does not tell."""
    inodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{columns[9]}]")
    for entry in Path("/proc").glob("[0-9]*/fd/*") if inodes else ():
        with contextlib.suppress(OSError):
            if str(entry.readlink()) in inodes:
                pid = entry.parts[2]
                return f"pid {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    return ""
