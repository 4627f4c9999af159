"""The boutique under Seamline: a copy of the example in the run's folder, started by its own command line."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from benchmarks.processes import ROOT, Child, free_port
from benchmarks.session import Session

EXAMPLE = ROOT / "examples" / "boutique"


def start_ours(session: Session, topology: str, *, cores: set[int]) -> tuple[list[Child], int]:
    """``seamline up`` of a fresh copy; the supervisor (its workers are below it) and the public port."""
    port = free_port()
    folder = _copy(session, topology, port)
    command = [sys.executable, "-m", "seamline.cli", "up", "--app", str(folder), "--topology", topology]
    return [session.start(Child(command, cores=cores, name=f"seamline up, {topology}"))], port


def _copy(session: Session, topology: str, port: int) -> Path:
    """Fresh data and a port of its own; everything else is as the example says."""
    folder = session.folder / f"ours-{topology}-{port}"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".seamline", "__pycache__"))
    file = folder / "seamline.toml"
    text = re.sub(r"(?m)^listen *=.*\n", "", file.read_text())
    gateway = f'[gateway]\nlisten = "127.0.0.1:{port}"\n'
    if "[gateway]\n" in text:
        text = text.replace("[gateway]\n", gateway)
    else:
        text += f"\n{gateway}"
    file.write_text(text)
    return folder
