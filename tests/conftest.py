"""What tests of every room share: real servers, started for the run and thrown away after it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import pytest

START_TIMEOUT_S = 60


@dataclass(frozen=True)
class PostgresqlServer:
    """A real server on this machine, for this run of the tests."""

    host: str
    port: int
    user: str
    password: str
    restart: Callable[[], None]
    """Ends it at once, as a crash would, and starts it again on the same port and data."""

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+asyncpg://{self.user}:{self.password}@{self.host}:{self.port}/{database}"


@pytest.fixture(scope="session")
def postgres_server() -> Generator[PostgresqlServer]:
    """PostgreSQL with a database cluster of its own, thrown away at the end. Mark the test ``needs_server``."""
    binaries = postgresql_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(mkdtemp(prefix="seamline-pg-"))
    server: subprocess.Popen[bytes] | None = None
    try:
        own(folder)
        password = folder / "password"
        password.write_text("tests-only", encoding="utf-8")
        own(password)
        run(
            binaries / "initdb", "--pgdata", folder / "data", "--username=admin", "--pwfile", password,
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip
        port = free_port()
        server = _start(binaries, folder, port)

        def restart() -> None:
            nonlocal server
            assert server is not None
            server.send_signal(signal.SIGQUIT)
            server.wait(START_TIMEOUT_S)
            server = _start(binaries, folder, port)

        yield PostgresqlServer("127.0.0.1", port, "admin", "tests-only", restart)
    finally:
        if server is not None:
            _stop(server)
        shutil.rmtree(folder, ignore_errors=True)


def _start(binaries: Path, folder: Path, port: int) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(
            as_postgres(
                binaries / "postgres", "-D", folder / "data", "-p", port, "-h", "127.0.0.1", "-k", folder,
                "-c", "fsync=off", "-c", "max_connections=200",
            ),
            stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    _await_ready(server, binaries, port, folder / "log")
    return server


def postgresql_binaries() -> Path | None:
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: float(p.parent.parent.name))
    if places:
        return places[-1].parent
    found = shutil.which("postgres")
    return Path(found).parent if found else None


def as_postgres(*command: object) -> list[str]:
    """PostgreSQL refuses to run as root."""
    words = [str(word) for word in command]
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *words] if os.getuid() == 0 else words


def own(path: Path) -> None:
    if os.getuid() == 0:
        shutil.chown(path, "postgres", "postgres")


def run(*command: object) -> None:
    done = subprocess.run(as_postgres(*command), capture_output=True, timeout=START_TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr.decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _await_ready(server: subprocess.Popen[bytes], binaries: Path, port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    asked = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(asked, timeout=START_TIMEOUT_S, check=False).returncode:
        if server.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"PostgreSQL did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.05)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Fast shutdown; setpriv has become the server itself, so the pid is the server's."""
    server.send_signal(2)
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait(20)
