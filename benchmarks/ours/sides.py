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


def filled_side(session: Session) -> Side:
    """The same server, filled by a client that does nothing but frames; as the lean HTTP client fills the peers."""
    authority = _authority(session)
    server, said = session.server("Seamline, frames, server", "benchmarks.ours.server", str(authority))
    client = session.driver("lean frames client", "benchmarks.ours.lean_client", str(_leaf(session)), str(said["port"]))
    return Side("Seamline, frames, lean client", [server], client)


def http_side(session: Session) -> Side:
    """The same mesh port, asked in the Connect protocol's JSON by the client that the peers are asked by."""
    authority = _authority(session)
    server, said = session.server("Seamline, HTTP wire", "benchmarks.ours.server", str(authority))
    driver = session.http_driver(
        "lean client",
        said["port"],
        "/bench.Orders/place",
        body={"order": SAMPLE},
        headers={"connect-protocol-version": "1"},
        certificates=str(_leaf(session)),
        name="caller",
        server_name="orders.bench.seamline",
    )
    return Side("Seamline, HTTP wire", [server], driver)


def _leaf(session: Session) -> Path:
    leaf = session.folder / "leaf"
    if not leaf.exists():
        write_leaf(_authority(session), leaf, "caller")
    return leaf


def _authority(session: Session) -> Path:
    return session.folder / "authority"
