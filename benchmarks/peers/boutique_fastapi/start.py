"""Starting the ten services: settings written, a process each, ready when every port answers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from benchmarks.processes import Child, free_ports, python
from benchmarks.session import START_S, Session

SERVICES = (
    "ads",
    "cart",
    "catalog",
    "checkout",
    "currency",
    "emails",
    "frontend",
    "payments",
    "recommendations",
    "shipping",
)
PACKAGE = "benchmarks.peers.boutique_fastapi"


def prepare(session: Session, example: Path, name: str = "peer") -> Path:
    """Write the settings of a shop of its own: fresh databases, free ports."""
    folder = session.folder / name
    folder.mkdir()
    data = folder / "shop.json"
    subprocess.run(python(f"{PACKAGE}.export", str(example), str(data)), check=True, timeout=START_S)
    settings = {
        "certificates": str(session.certificates()),
        "folder": str(folder),
        "example": str(example),
        "data": str(data),
        "ports": dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True)),
    }
    path = folder / "settings.json"
    path.write_text(json.dumps(settings))
    return path


def start(session: Session, settings: Path, *, cores: set[int]) -> tuple[list[Child], int]:
    """All services started together, as a supervisor would; the children and the public port."""
    children = [
        session.start(
            Child(python(f"{PACKAGE}.server", service, str(settings)), cores=cores, name=f"FastAPI {service}")
        )
        for service in SERVICES
    ]
    for child in children:
        child.answer(START_S)
    return children, json.loads(settings.read_text())["ports"]["frontend"]
