"""PostgreSQL from Debian with a cluster of its own, as it is installed: what it acknowledges is on disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.processes import Child, all_cores, free_port, wait_for_port
from benchmarks.session import Session

USER, PASSWORD = "bench", "bench-only"
INITDB_S = 60


def server(session: Session) -> str:
    """``user:password@host:port`` of a new server, for urls."""
    binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: float(each.parent.name))
    port = free_port()
    session.folder.chmod(0o711)
    folder = session.folder / f"postgresql-{port}"
    folder.mkdir()
    password = folder / "password"
    password.write_text(PASSWORD, encoding="utf-8")
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        shutil.chown(password, "postgres", "postgres")
    subprocess.run(
        _as_postgres(
            str(binaries / "initdb"), "--pgdata", f"{folder}/data", f"--username={USER}", "--pwfile", str(password),
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
        ),
        check=True, capture_output=True, timeout=INITDB_S, cwd="/",
    )  # fmt: skip
    command = _as_postgres(
        str(binaries / "postgres"), "-D", f"{folder}/data", "-p", str(port), "-h", "127.0.0.1", "-k", str(folder),
        "-c", "max_connections=200",
    )  # fmt: skip
    child = session.start(Child(command, cores=all_cores(), name="postgres", folder=Path("/")))
    wait_for_port(port, child, timeout_s=30)
    return f"{USER}:{PASSWORD}@127.0.0.1:{port}"


def _as_postgres(*command: str) -> list[str]:
    """It refuses to run as root."""
    if os.getuid() != 0:
        return list(command)
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
