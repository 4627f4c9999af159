"""The whole shop: the boutique in one process, as services, and the same boutique as FastAPI services.

All server processes share the servers' core, in every form, so that processes that sleep cost nothing and processes
that work cost what they cost. CPU is that of every server process together, the supervisor included.
"""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.driver import Measure
from benchmarks.figures import Row, compare
from benchmarks.ours.shop import EXAMPLE, start_ours
from benchmarks.peers.boutique_fastapi import start as peer
from benchmarks.processes import Child, ChildFailed, all_cores, server_core
from benchmarks.rows import Family
from benchmarks.session import START_S, Session
from benchmarks.sides import LoadFailed, Side, alternate

PEER = "FastAPI + httpx services"
NOBODY = "the same, observed by nobody"

# A rate at which the slowest side is well below its limit: a queue would measure the queue.
RATE_PER_S = 10
SHOPPERS_PACED = 20
# The number at which the peer gives most: more shoppers make its pools of connections slower.
SHOPPERS_CLOSED = 4
PACED_S_PER_S = 3.5
CLOSED_S_PER_S = 2
LATENCY = f"ms at {RATE_PER_S} pages/s"
CPU_PACED = f"ms of CPU at {RATE_PER_S} pages/s"
CPU_FULL = "ms of CPU at full load"
START_ROUNDS_MAX = 3
MEMORY_LOAD_S = 5
ASK_S = 60
COMPARED = ("/", "/product/brass-pen", "/search?q=wool", "/cart")
_PLACE = re.compile(rb'<p class="place">.*?</p>', re.DOTALL)


def whole_shop(session: Session) -> list[Row]:
    (monolith, one), (services, two), (theirs, three) = (
        _ours(session, "monolith"),
        _ours(session, "services"),
        _theirs(session),
    )
    for path in COMPARED:
        _must_show_the_same(path, one, two, three)
    sides = [monolith, services, theirs]
    effort = session.effort
    paced: dict[str, Any] = {
        "in_flight": SHOPPERS_PACED,
        "rate": RATE_PER_S,
        "seconds": PACED_S_PER_S * effort.seconds,
    }
    closed: dict[str, Any] = {"in_flight": SHOPPERS_CLOSED, "seconds": CLOSED_S_PER_S * effort.seconds}
    warm_up_s = 2 * effort.warm_up_s
    slow = alternate(sides, paced, rounds=effort.rounds, warm_up_s=warm_up_s)
    full = alternate(sides, closed, rounds=effort.rounds, warm_up_s=warm_up_s)
    rows: list[Row] = []
    for number, name in enumerate(("boutique", "boutique_services")):
        rows += [
            _row(f"{name}_cpu_per_request_vs_fastapi_services", CPU_FULL, _cpu_ms, full[number], full[2]),
            _row(f"{name}_cpu_at_fixed_rate_vs_fastapi_services", CPU_PACED, _cpu_ms, slow[number], slow[2]),
            _row(f"{name}_p50_vs_fastapi_services", LATENCY, _p50, slow[number], slow[2]),
            _row(f"{name}_p99_vs_fastapi_services", LATENCY, _p99, slow[number], slow[2]),
            _row(f"{name}_throughput_vs_fastapi_services", "requests/s", _per_s, full[number], full[2]),
        ]
    ours = compare(
        "boutique_monolith_cpu_vs_own_services",
        CPU_FULL,
        "lower",
        [_cpu_ms(measure) for measure in full[0]],
        "Seamline, services",
        [_cpu_ms(measure) for measure in full[1]],
    )
    return [*rows, ours]


def start_and_memory(session: Session) -> list[Row]:
    """From the start of the first process to the first answered page on all cores, then memory after a bounded load."""
    rounds = min(session.effort.rounds, START_ROUNDS_MAX)
    taken: dict[str, list[float]] = {"our start": [], "our memory": [], "their start": [], "their memory": []}
    for number in range(rounds):
        settings = peer.prepare(session, EXAMPLE, f"start-{number}")
        for name, start in (
            ("our", partial(start_ours, topology="monolith", cores=all_cores())),
            ("their", partial(peer.start, settings=settings, cores=all_cores())),
        ):
            with session.inner() as inner:
                began = time.monotonic()
                children, port = start(inner)
                wait_for_page(port, children)
                taken[f"{name} start"].append(time.monotonic() - began)
                _driver(inner, port).ask(
                    {"in_flight": SHOPPERS_PACED, "rate": RATE_PER_S, "seconds": MEMORY_LOAD_S}, ASK_S
                )
                taken[f"{name} memory"].append(sum(child.memory_mb() for child in children))
    return [
        compare("startup_to_first_request_s", "s", "lower", taken["our start"], PEER, taken["their start"]),
        compare("monolith_rss_mb", "MB", "lower", taken["our memory"], PEER, taken["their memory"]),
    ]


def observed(session: Session) -> list[Row]:
    """The shop in one process, seen by nobody, with 1 % of its traces recorded, and with all of them.

    The observer's CPU is in it: taking in, keeping, watching.
    """
    dark = {"SEAMLINE_OBSERVE_STORE": "false", "SEAMLINE_TELEMETRY_PROFILE_HZ": "0"}
    ways = {
        "off": dark | {"SEAMLINE_TELEMETRY_SAMPLE": "0", "SEAMLINE_TELEMETRY_SAMPLE_PER_S": "0"},
        "1_percent": {"SEAMLINE_TELEMETRY_SAMPLE": "0.01", "SEAMLINE_TELEMETRY_SAMPLE_PER_S": "0"},
        "100_percent": {"SEAMLINE_TELEMETRY_SAMPLE": "1"},
    }
    sides: list[Side] = []
    for name, settings in ways.items():
        children, port = start_ours(session, "monolith", cores=server_core(), settings=settings)
        wait_for_page(port, children)
        sides.append(Side(f"Seamline, observed {name}", children, _driver(session, port)))
    effort = session.effort
    closed = {"in_flight": SHOPPERS_CLOSED, "seconds": CLOSED_S_PER_S * effort.seconds}
    off, *seen = alternate(sides, closed, rounds=effort.rounds, warm_up_s=2 * effort.warm_up_s)
    nobody = [_cpu_ms(each) for each in off]
    return [
        compare(f"boutique_cpu_observed_{name}", CPU_FULL, "lower", [_cpu_ms(each) for each in taken], NOBODY, nobody)
        for name, taken in zip(list(ways)[1:], seen, strict=True)
    ]


FAMILIES = (
    Family({"boutique_cpu_observed_1_percent": "", "boutique_cpu_observed_100_percent": ""}, observed),
    Family(
        {
            "boutique_cpu_per_request_vs_fastapi_services": "≥ 10",
            "boutique_cpu_at_fixed_rate_vs_fastapi_services": "",
            "boutique_p50_vs_fastapi_services": "≥ 10",
            "boutique_p99_vs_fastapi_services": "",
            "boutique_throughput_vs_fastapi_services": "",
            "boutique_services_cpu_per_request_vs_fastapi_services": "≥ 5",
            "boutique_services_cpu_at_fixed_rate_vs_fastapi_services": "",
            "boutique_services_p50_vs_fastapi_services": "",
            "boutique_services_p99_vs_fastapi_services": "",
            "boutique_services_throughput_vs_fastapi_services": "",
            "boutique_monolith_cpu_vs_own_services": "",
        },
        whole_shop,
    ),
    Family({"startup_to_first_request_s": "≤ 2 s", "monolith_rss_mb": "≤ 200 MB"}, start_and_memory),
)


def _ours(session: Session, topology: str) -> tuple[Side, int]:
    children, port = start_ours(session, topology, cores=server_core())
    wait_for_page(port, children)
    return Side(f"Seamline, {topology}", children, _driver(session, port)), port


def _theirs(session: Session) -> tuple[Side, int]:
    settings = peer.prepare(session, EXAMPLE)
    children, port = peer.start(session, settings, cores=server_core())
    wait_for_page(port, children)
    return Side(PEER, children, _driver(session, port)), port


def _must_show_the_same(path: str, *ports: int) -> None:
    """A peer that shows less would do less."""
    pages = {_PLACE.sub(b"", _page(port, path)) for port in ports}
    if len(pages) != 1:
        raise LoadFailed(f"the shops show different pages at {path}")


def _page(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=START_S) as answer:
        return answer.read()


def _driver(session: Session, port: int) -> Child:
    return session.driver("shoppers", "benchmarks.shop_driver", str(EXAMPLE), f"http://127.0.0.1:{port}")


def wait_for_page(port: int, children: Sequence[Child], timeout_s: float = START_S) -> None:
    """Until the home page is answered with 200."""
    until, last = time.monotonic() + timeout_s, "no answer"
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=timeout_s) as answer:
                if answer.status == 200:
                    return
        except OSError as error:
            last = str(error)
            time.sleep(0.005)
        for child in children:
            if child.ended:
                raise ChildFailed(f"{child.name} ended\n{child.log()}")
    logs = "\n".join(child.log(1000) for child in children)
    raise ChildFailed(f"no page within {timeout_s} s, but {last}\n{logs}")


def _row(
    name: str,
    unit: str,
    figure: Callable[[Measure], float],
    ours: Sequence[Measure],
    theirs: Sequence[Measure],
) -> Row:
    better = "higher" if figure is _per_s else "lower"
    return compare(name, unit, better, [figure(each) for each in ours], PEER, [figure(each) for each in theirs])


def _cpu_ms(measure: Measure) -> float:
    return measure.server_cpu_ms


def _p50(measure: Measure) -> float:
    return measure.p50_ms


def _p99(measure: Measure) -> float:
    return measure.p99_ms


def _per_s(measure: Measure) -> float:
    return measure.per_s
