"""Our sides of the remote rows: frames between two processes, and the HTTP wire under the lean client."""

from __future__ import annotations

from pathlib import Path

from benchmarks.order import SAMPLE
from benchmarks.ours.hosting import write_leaf
from benchmarks.session import Session
from benchmarks.sides import Side


def frames_side(session: Session, *, sample: float | None = None, name: str = "Seamline, frames") -> Side:
    """A stub in one process, the handler in the other; everything the mesh does is on."""
    authority, told = str(_authority(session)), [] if sample is None else [str(sample)]
    server, said = session.server(f"{name}, server", "benchmarks.ours.server", authority, *told)
    client = session.driver(f"{name}, client", "benchmarks.ours.client", authority, str(said["port"]), *told)
    return Side(name, [server], client)


def http_side(session: Session) -> Side:
    """The same mesh port, asked in the Connect protocol's JSON by the client that the peers are asked by."""
    authority = _authority(session)
    leaf = session.folder / "leaf"
    write_leaf(authority, leaf, "caller")
    server, said = session.server("Seamline, HTTP wire", "benchmarks.ours.server", str(authority))
    driver = session.http_driver(
        "lean client",
        said["port"],
        "/bench.Orders/place",
        body={"order": SAMPLE},
        headers={"connect-protocol-version": "1"},
        certificates=str(leaf),
        name="caller",
        server_name="orders.bench.seamline",
    )
    return Side("Seamline, HTTP wire", [server], driver)


def _authority(session: Session) -> Path:
    return session.folder / "authority"
