"""Real brokers on free ports of this machine, with data that survives their death and is thrown away at the end."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from tempfile import mkdtemp
from typing import Self

import psutil
from tests.conftest import START_TIMEOUT_S, as_postgres, free_port, own, postgresql_binaries, run

PASSWORD = "tests-only"


class Server(ABC):
    """A server process that a test may end in any way and start again on the same data."""

    program: str
    """What is missing when it is missing, and the Debian package it is in."""

    def __init__(self) -> None:
        self.folder = Path(mkdtemp(prefix=f"seamline-{type(self).__name__.lower()}-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @abstractmethod
    def installed(cls) -> bool: ...

    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def url(self, password: str = PASSWORD) -> str: ...

    def prepare(self) -> None:  # noqa: B027  # most need nothing
        """Make what the first start needs."""

    def ready(self) -> bool:
        """Whether it answers; by default, whether its port does."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def start(self) -> None:
        """Start, and wait until it answers."""
        with (self.folder / "log").open("ab") as out:
            self._process = subprocess.Popen(self.command(), stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.program} did not start:\n{self.log()}")
            time.sleep(0.02)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def kill(self) -> None:
        """``kill -9``: what the server had not handed to the kernel is lost."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGINT)

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGCONT)
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
        # What PostgreSQL leaves behind when it is killed ends by itself; until then the data cannot be opened again.
        _, left = psutil.wait_procs(children, timeout=5)
        for child in left:
            child.kill()
        psutil.wait_procs(left, timeout=5)

    def __enter__(self) -> Self:
        self.prepare()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


class Nats(Server):
    program = "nats-server (apt-get install nats-server)"

    @classmethod
    def installed(cls) -> bool:
        return _find("nats-server") is not None

    def prepare(self) -> None:
        # Streams reserve what they may hold, and a session makes many: by itself it grants three quarters of the disk.
        (self.folder / "nats.conf").write_text("jetstream { max_file_store: 4TB }\n")

    def command(self) -> list[str]:
        return [
            _find("nats-server") or "", "-c", str(self.folder / "nats.conf"), "-js",
            "-sd", str(self.folder / "data"), "-a", "127.0.0.1",
            "-p", str(self.port), "--user", "seamline", "--pass", PASSWORD,
        ]  # fmt: skip

    def ready(self) -> bool:
        return super().ready() and "Server is ready" in self.log().rpartition("Starting nats-server")[2]

    def url(self, password: str = PASSWORD) -> str:
        return f"nats://seamline:{password}@127.0.0.1:{self.port}"


class Redis(Server):
    program = "redis-server (apt-get install redis-server)"
    appendfsync = "always"

    @classmethod
    def installed(cls) -> bool:
        return _find("redis-server") is not None

    def command(self) -> list[str]:
        return [
            _find("redis-server") or "", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
            "--appendonly", "yes", "--appendfsync", self.appendfsync, "--save", "", "--requirepass", PASSWORD,
        ]  # fmt: skip

    def ready(self) -> bool:
        """It listens before it has read its data."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as link:
            link.settimeout(1)
            link.sendall(f"AUTH {PASSWORD}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                piece = link.recv(256)
                if not piece:
                    return False
                answer += piece
            return b"+PONG" in answer
        return False

    def url(self, password: str = PASSWORD) -> str:
        return f"redis://:{password}@127.0.0.1:{self.port}/0"


class Postgresql(Server):
    """With fsync, unlike the server that tests of other rooms share."""

    program = "PostgreSQL (apt-get install postgresql)"

    @classmethod
    def installed(cls) -> bool:
        return postgresql_binaries() is not None

    @property
    def _binaries(self) -> Path:
        found = postgresql_binaries()
        assert found is not None
        return found

    def prepare(self) -> None:
        own(self.folder)
        password = self.folder / "password"
        password.write_text(PASSWORD, encoding="utf-8")
        own(password)
        run(
            self._binaries / "initdb", "--pgdata", self.folder / "data", "--username=admin", "--pwfile", password,
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync",
        )  # fmt: skip

    def command(self) -> list[str]:
        return as_postgres(
            self._binaries / "postgres", "-D", self.folder / "data", "-p", self.port, "-h", "127.0.0.1",
            "-k", self.folder, "-c", "max_connections=200", "-c", "shared_buffers=32MB",
        )  # fmt: skip

    def ready(self) -> bool:
        asked = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked, timeout=START_TIMEOUT_S, check=False).returncode == 0

    def url(self, password: str = PASSWORD) -> str:
        return f"postgresql://admin:{password}@127.0.0.1:{self.port}/postgres"


def _find(program: str) -> str | None:
    return shutil.which(program, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
