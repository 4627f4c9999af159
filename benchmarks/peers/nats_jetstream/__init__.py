"""NATS JetStream from Debian, with a file store; nats-py publishes and consumes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.processes import Child, all_cores, free_port, wait_for_port
from benchmarks.session import Session


def server(session: Session) -> int:
    """A server of its own; its port. It syncs to disk every two minutes; version 2.9 has no setting for more."""
    port = free_port()
    folder = session.folder / f"nats-{port}"
    folder.mkdir()
    configuration = Path(folder, "nats.conf")
    configuration.write_text(
        f'host: "127.0.0.1"\nport: {port}\njetstream {{ store_dir: "{folder}/store" }}\n', encoding="utf-8"
    )
    child = session.start(Child(["nats-server", "-c", str(configuration)], cores=all_cores(), name="nats-server"))
    wait_for_port(port, child)
    return port
