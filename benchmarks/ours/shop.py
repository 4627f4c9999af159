"""The boutique under Seamline, started by its own command line with data of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from benchmarks.processes import ROOT, Child, free_port
from benchmarks.session import Session

EXAMPLE = ROOT / "examples" / "boutique"


def start_ours(
    session: Session, topology: str, *, cores: set[int], settings: Mapping[str, str] | None = None
) -> tuple[list[Child], int]:
    """``seamline up`` with fresh data on a free port: the supervisor, whose workers are below it, and the port.

    ``settings`` are variables of the environment.
    """
    port = free_port()
    data = session.folder / f"ours-{topology}-{port}"
    command = [
        *("env", *(f"{name}={value}" for name, value in (settings or {}).items())),
        *(sys.executable, "-m", "seamline.cli", "up"),
        *("--app", str(EXAMPLE), "--data", str(data)),
        *("--topology", topology, "--port", str(port)),
    ]
    return [session.start(Child(command, cores=cores, name=f"seamline up, {topology}"))], port
