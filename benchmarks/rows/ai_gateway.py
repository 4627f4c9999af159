"""The AI gateway beside LiteLLM's proxy, both in front of the same engine that answers at once.

Ours looks up the key of each call, and whether it may ask this model, reserves and settles its cost in tokens, money
and requests, chooses between two targets, and accounts for it; LiteLLM checks its master key (its budgets need a
database). The gateway has the servers' core to itself; engine and load are on the other. What is added is what a call
takes through a gateway less what it takes straight to the engine, in the same round.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.driver import Measure
from benchmarks.figures import Row, against_budget, compare
from benchmarks.peers import litellm_proxy
from benchmarks.processes import Child, client_core, free_port, python, server_core, wait_for_port
from benchmarks.rows import Family
from benchmarks.session import Session
from benchmarks.sides import Side, alternate

PEER = "LiteLLM's proxy"
PATH = "/v1/chat/completions"
IN_FLIGHT = 16
_START_S = 120
_MESSAGES = [
    {"role": "system", "content": "You are kind."},
    {"role": "user", "content": "Tell me of ships and the sea, in few words."},
]


@dataclass(slots=True)
class _Door:
    """A server that speaks OpenAI's wire, and who asks it."""

    name: str
    server: Child
    port: int
    key: str = ""
    ready_s: float = 0.0

    def whole(self, session: Session) -> Side:
        driver = session.driver(f"{self.name}, load", "benchmarks.http_driver", self._asked(stream=False))
        return Side(self.name, [self.server], driver)

    def streamed(self, session: Session) -> Side:
        driver = session.driver(f"{self.name}, streams", "benchmarks.ai_driver", self._asked(stream=True))
        return Side(f"{self.name}, streamed", [self.server], driver)

    def _asked(self, *, stream: bool) -> str:
        body = {"model": "stub", "messages": _MESSAGES, "temperature": 0.2, **({"stream": True} if stream else {})}
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return json.dumps({"port": self.port, "path": PATH, "body": json.dumps(body), "headers": headers})


def against_litellm(session: Session) -> list[Row]:
    stub = _stub(session)
    ours, theirs = _ours(session, stub), _litellm(session, stub)
    seconds = session.effort.seconds
    doors = (ours, theirs, stub)
    whole = [door.whole(session) for door in doors]
    streamed = [door.streamed(session) for door in doors]
    full = _turns(session, whole[:2], in_flight=IN_FLIGHT, seconds=seconds)
    alone = _turns(session, whole, in_flight=1, seconds=seconds)
    first = _turns(session, streamed, in_flight=IN_FLIGHT, seconds=seconds)
    per_core = [[measure.per_server_cpu_s for measure in side] for side in full]
    streams = [[measure.per_server_cpu_s for measure in side] for side in first]
    return [
        compare(
            "ai_gateway_throughput_vs_litellm", "requests per CPU second", "higher", per_core[0], PEER, per_core[1]
        ),
        compare("ai_gateway_added_p50_ms", "ms", "lower", *_added(alone, "p50_ms")),
        compare("ai_gateway_added_p99_ms", "ms", "lower", *_added(alone, "p99_ms")),
        compare("ai_gateway_first_token", "ms added, 16 in flight", "lower", *_added(first, "p50_ms")),
        compare("ai_gateway_streams_per_core", "streams per CPU second", "higher", streams[0], PEER, streams[1]),
        compare("ai_gateway_memory_mb", "MB", "lower", [ours.server.memory_mb()], PEER, [theirs.server.memory_mb()]),
        compare("ai_gateway_ready_s", "s", "lower", [ours.ready_s], PEER, [theirs.ready_s]),
    ]


def against_bare(session: Session) -> list[Row]:
    """How far from a proxy on the same server and client that looks at nothing; and what it costs to look inside."""
    stub = _stub(session)
    ours, guarded = _ours(session, stub), _ours(session, stub, "guarded")
    server, told = session.server("bare proxy", "benchmarks.ours.bare_proxy", str(stub.port))
    bare = _Door("bare proxy", server, told["port"])
    sides = [door.whole(session) for door in (ours, bare, guarded)]
    full = _turns(session, sides, in_flight=64, seconds=session.effort.seconds)
    per_core = [[measure.per_server_cpu_s for measure in side] for side in full]
    unit, peer = "requests per CPU second", "bare proxy, same server and client"
    return [
        against_budget("ai_gateway_per_core", unit, "higher", per_core[0], 10_000),
        compare("ai_gateway_vs_bare_proxy", unit, "higher", per_core[0], peer, per_core[1]),
        compare("ai_gateway_guarded_vs_bare_proxy", unit, "higher", per_core[2], peer, per_core[1]),
    ]


FAMILIES = (
    Family(
        {
            "ai_gateway_throughput_vs_litellm": "≥ 100",
            "ai_gateway_added_p50_ms": "≤ 0.5 ms",
            "ai_gateway_added_p99_ms": "",
            "ai_gateway_first_token": "≤ 5 ms",
            "ai_gateway_streams_per_core": "",
            "ai_gateway_memory_mb": "≤ 80 MB",
            "ai_gateway_ready_s": "≤ 1.5 s",
        },
        against_litellm,
    ),
    Family(
        {"ai_gateway_per_core": "≥ 10,000", "ai_gateway_vs_bare_proxy": "", "ai_gateway_guarded_vs_bare_proxy": ""},
        against_bare,
    ),
)


def _turns(session: Session, sides: Sequence[Side], *, in_flight: int, seconds: float) -> list[list[Measure]]:
    load: dict[str, Any] = {"loop": "closed", "in_flight": in_flight, "seconds": seconds}
    return alternate(sides, load, rounds=session.effort.rounds, warm_up_s=session.effort.warm_up_s)


def _added(rounds: list[list[Measure]], figure: str) -> tuple[list[float], str, list[float]]:
    ours, theirs, straight = ([getattr(measure, figure) for measure in side] for side in rounds)
    return _less(ours, straight), PEER, _less(theirs, straight)


def _less(through: list[float], straight: list[float]) -> list[float]:
    return [max(a - b, 0.001) for a, b in zip(through, straight, strict=True)]


def _stub(session: Session) -> _Door:
    child = session.start(Child(python("benchmarks.ours.ai_stub"), cores=client_core(), name="stub"))
    return _Door("stub", child, child.answer(_START_S)["port"])


def _ours(session: Session, stub: _Door, *steps: str) -> _Door:
    name = ", ".join(("Seamline's AI gateway", *steps))
    folder = session.folder / "-".join(("ai", *steps))
    began = time.monotonic()
    server, told = session.server(name, "benchmarks.ours.ai_gateway", str(stub.port), str(folder), *steps)
    return _Door(name, server, told["port"], told["key"], time.monotonic() - began)


def _litellm(session: Session, stub: _Door) -> _Door:
    port = free_port()
    began = time.monotonic()
    command = litellm_proxy.command(session.folder, stub=stub.port, port=port)
    child = session.start(Child(command, cores=server_core(), name=PEER, folder=session.folder))
    wait_for_port(port, child, _START_S)
    return _Door(PEER, child, port, litellm_proxy.KEY, time.monotonic() - began)
