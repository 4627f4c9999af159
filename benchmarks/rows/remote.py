"""One call between two processes under mutual TLS: ours beside the usual ways.

The servers' core does nothing but serve, the clients' core nothing but call, 64 calls in flight. The figure is
calls per second of *server* CPU, so that a slow client, ours or theirs, does not hide what a server can do; and because
an idle server costs more per call, every server is filled by a client that does little else (gRPC has only its own).
Throughput is that of whole pairs, each with the client that its users have.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.driver import Measure
from benchmarks.figures import Row, compare
from benchmarks.ours.sides import filled_side, frames_side, http_side
from benchmarks.peers.envoy import configuration as envoy
from benchmarks.peers.grpc_aio.compile import compile_into
from benchmarks.processes import Child, client_core, free_port, server_core, wait_for_port
from benchmarks.rows import Family
from benchmarks.session import Session
from benchmarks.sides import Side, alternate

CPU_UNIT = "calls per server CPU second"
ALL_CPU_UNIT = "calls per CPU second, both ends"


def against_grpc(session: Session) -> list[Row]:
    filled, ours, theirs = _turns(session, filled_side(session), frames_side(session), _grpc(session))
    return [
        _per_server_cpu("remote_call_vs_grpc_aio", filled, "grpc.aio", theirs),
        _throughput("remote_throughput_vs_grpc_aio", ours, "grpc.aio", theirs),
        compare(
            "remote_p99_vs_grpc_aio",
            "ms, 64 in flight",
            "lower",
            [measure.p99_ms for measure in ours],
            "grpc.aio",
            [measure.p99_ms for measure in theirs],
        ),
    ]


def against_fastapi(session: Session) -> list[Row]:
    certificates = str(session.certificates())
    server, told = session.server("FastAPI", "benchmarks.peers.fastapi_httpx.server", certificates)
    # httpx cannot fill the server, and an idle server costs more per call: the CPU row takes the lean client.
    lean = session.http_driver("lean client", told["port"], "/orders", certificates=certificates)
    httpx = session.driver("httpx", "benchmarks.peers.fastapi_httpx.client", certificates, str(told["port"]))
    sides = [
        filled_side(session),
        frames_side(session),
        Side("FastAPI, lean client", [server], lean),
        Side("FastAPI, httpx", [server], httpx),
    ]
    filled, ours, server_alone, pair = _turns(session, *sides)
    return [
        _per_server_cpu("remote_call_vs_fastapi_httpx", filled, "FastAPI on uvicorn", server_alone),
        _throughput("remote_throughput_vs_fastapi_httpx", ours, "FastAPI + httpx", pair),
    ]


def against_envoys(session: Session) -> list[Row]:
    """The first row counts the server's sidecar with the service; the second everything, client and its sidecar too."""
    filled, ours, theirs = _turns(session, filled_side(session), frames_side(session), _envoys(session))
    return [
        _per_server_cpu("remote_call_vs_two_envoys", filled, "service behind two Envoys", theirs),
        compare(
            "remote_call_all_cpu_vs_two_envoys",
            ALL_CPU_UNIT,
            "higher",
            [measure.per_cpu_s for measure in ours],
            "service behind two Envoys",
            [measure.per_cpu_s for measure in theirs],
        ),
        _throughput("remote_throughput_vs_two_envoys", ours, "service behind two Envoys", theirs),
    ]


def http_wire(session: Session) -> list[Row]:
    certificates = str(session.certificates())
    server, told = session.server("uvicorn", "benchmarks.peers.uvicorn_bare.server", certificates)
    lean = session.http_driver("lean client", told["port"], "/orders", certificates=certificates)
    ours, theirs = _turns(session, http_side(session), Side("uvicorn", [server], lean))
    return [_per_server_cpu("http_wire_vs_uvicorn", ours, "uvicorn, bare ASGI", theirs)]


FAMILIES = (
    Family(
        {
            "remote_call_vs_grpc_aio": "≥ 15",
            "remote_throughput_vs_grpc_aio": "",
            "remote_p99_vs_grpc_aio": "",
        },
        against_grpc,
    ),
    Family({"remote_call_vs_fastapi_httpx": "≥ 10", "remote_throughput_vs_fastapi_httpx": ""}, against_fastapi),
    Family(
        {
            "remote_call_vs_two_envoys": "≥ 8",
            "remote_call_all_cpu_vs_two_envoys": "",
            "remote_throughput_vs_two_envoys": "",
        },
        against_envoys,
    ),
    Family({"http_wire_vs_uvicorn": ""}, http_wire),
)


def _turns(session: Session, *sides: Side) -> list[list[Measure]]:
    effort = session.effort
    return alternate(sides, effort.load, rounds=effort.rounds, warm_up_s=effort.warm_up_s)


def _per_server_cpu(name: str, ours: Sequence[Measure], peer: str, theirs: Sequence[Measure]) -> Row:
    return compare(
        name,
        CPU_UNIT,
        "higher",
        [measure.per_server_cpu_s for measure in ours],
        peer,
        [measure.per_server_cpu_s for measure in theirs],
    )


def _throughput(name: str, ours: Sequence[Measure], peer: str, theirs: Sequence[Measure]) -> Row:
    return compare(
        name,
        "calls/s",
        "higher",
        [measure.per_s for measure in ours],
        peer,
        [measure.per_s for measure in theirs],
    )


def _grpc(session: Session) -> Side:
    certificates, generated = str(session.certificates()), session.folder / "generated"
    generated.mkdir()
    compile_into(generated)
    server, told = session.server("grpc.aio server", "benchmarks.peers.grpc_aio.server", str(generated), certificates)
    driver = session.driver(
        "grpc.aio client",
        "benchmarks.peers.grpc_aio.client",
        *(str(generated), certificates, str(told["port"])),
    )
    return Side("grpc.aio", [server], driver)


def _envoys(session: Session) -> Side:
    """A service and its sidecar on the servers' core, the client and its sidecar on the clients'."""
    certificates = session.certificates()
    service, told = session.server("service behind Envoy", "benchmarks.peers.envoy.service")
    outer, inner = free_port(), free_port()
    server = session.start(
        Child(
            envoy.command(envoy.server_sidecar(certificates, listen=inner, service=told["port"])),
            cores=server_core(),
            name="Envoy of the server",
        )
    )
    wait_for_port(inner, server)
    client = session.start(
        Child(
            envoy.command(envoy.client_sidecar(certificates, listen=outer, remote=inner)),
            cores=client_core(),
            name="Envoy of the client",
        )
    )
    wait_for_port(outer, client)
    driver = session.http_driver("lean client", outer, "/orders")
    return Side("two Envoys", [server, service], driver, sidecars=[client])
