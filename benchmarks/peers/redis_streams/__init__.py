"""Redis Streams from Debian, with an append-only file; redis-py publishes."""

from __future__ import annotations

from benchmarks.processes import Child, all_cores, free_port, wait_for_port
from benchmarks.session import Session


def server(session: Session, appendfsync: str) -> int:
    """A server of its own; its port."""
    port = free_port()
    folder = session.folder / f"redis-{port}"
    folder.mkdir()
    command = [
        "redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "",
        "--appendonly", "yes", "--appendfsync", appendfsync,
    ]  # fmt: skip
    child = session.start(Child(command, cores=all_cores(), name="redis-server"))
    wait_for_port(port, child)
    return port
