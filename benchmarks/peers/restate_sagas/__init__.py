"""Restate: its server from the npm registry, its Python SDK behind hypercorn, a handler of three steps."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.processes import ROOT, Child, all_cores, free_ports, python, wait_for_port
from benchmarks.session import Session

PROGRAM = ROOT / ".venv" / "peers" / "node_modules" / ".bin" / "restate-server"
"""Where ``make bench`` installs it."""
REGISTER_S = 30


def server(session: Session) -> int:
    """The server with the service registered; the port of its ingress."""
    ingress, admin, node, service = free_ports(4)
    folder = session.folder / f"restate-{ingress}"
    folder.mkdir()
    configuration = Path(folder, "restate.toml")
    configuration.write_text(
        f'base-dir = "{folder}/data"\nbind-address = "127.0.0.1:{node}"\nadvertised-address = "http://127.0.0.1:{node}"\n'
        f'[admin]\nbind-address = "127.0.0.1:{admin}"\n[ingress]\nbind-address = "127.0.0.1:{ingress}"\n'
        'log-filter = "warn"\n',
        encoding="utf-8",
    )
    handlers = session.start(
        Child(
            python("hypercorn", "benchmarks.peers.restate_sagas.service:app", "--bind", f"127.0.0.1:{service}"),
            cores=all_cores(),
            name="restate service",
        )
    )
    command = [str(PROGRAM), "--config-file", str(configuration), "--no-logo"]
    child = session.start(Child(command, cores=all_cores(), name="restate-server"))
    wait_for_port(service, handlers)
    wait_for_port(admin, child, timeout_s=60)
    _register(admin, service)
    wait_for_port(ingress, child)
    return ingress


def _register(admin: int, service: int) -> None:
    body = json.dumps({"uri": f"http://127.0.0.1:{service}", "force": True}).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{admin}/deployments", body, headers)
    until = time.monotonic() + REGISTER_S
    while True:
        try:
            urllib.request.urlopen(request, timeout=10).close()
            return
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
