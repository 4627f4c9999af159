"""The application under test is importable; a service that somebody else has started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
for folder in (HERE, HERE / "other_app"):
    sys.path.insert(0, str(folder))


@pytest.fixture
def node_by_hand() -> Iterator[tuple[int, int]]:
    """A service that somebody else has started, on a port; and its process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "SEAMLINE_APP": "other", "SEAMLINE_LISTEN": str(port)}  # noqa: TID251  # for the child
    process = subprocess.Popen(["node", str(HERE / "service.mjs")], env=environment)
    yield port, process.pid
    process.send_signal(signal.SIGKILL)
    process.wait()
