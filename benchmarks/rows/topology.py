"""The shop goes from one process to one for each module: workers as copies of one process, and each a new one."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.figures import Row, compare
from benchmarks.ours.shop import start_ours
from benchmarks.processes import all_cores
from benchmarks.rows import Family
from benchmarks.rows.boutique import wait_for_page
from benchmarks.session import Session
from seamline.run.admin import AdminClient

NEW_PROCESSES = "the same, each a new process"
ROUNDS_MAX = 3
KILLED = "catalog"
SWITCHED_S = 120
Taken = dict[str, list[float]]


def switched(session: Session) -> list[Row]:
    ways: dict[str, tuple[Mapping[str, str], Taken]] = {
        name: ({"SEAMLINE_RUN_FORK": fork}, {"took": [], "cpu": [], "memory": [], "replaced": []})
        for name, fork in (("copies", "true"), ("new", "false"))
    }
    for _ in range(min(session.effort.rounds, ROUNDS_MAX)):
        for settings, taken in ways.values():
            _switch(session, settings, taken)
    ours, theirs = ways["copies"][1], ways["new"][1]
    return [
        compare(name, unit, "lower", ours[what], NEW_PROCESSES, theirs[what])
        for name, unit, what in (
            ("switch_to_services_s", "s, 16 processes, idle", "took"),
            ("switch_to_services_cpu_s", "s of CPU, 16 processes", "cpu"),
            ("services_memory_mb", "MB, 16 processes, shared pages once", "memory"),
            ("worker_replaced_s", "s from kill -9 to ready", "replaced"),
        )
    ]


def _switch(session: Session, settings: Mapping[str, str], taken: Taken) -> None:
    with session.inner() as inner:
        children, port = start_ours(inner, "monolith", cores=all_cores(), settings=settings)
        (child,) = children
        wait_for_page(port, children)
        admin = AdminClient(inner.folder / f"ours-monolith-{port}")
        before = child.cpu_s()
        began = time.monotonic()
        asyncio.run(asyncio.wait_for(admin.ask("switch", topology="services"), SWITCHED_S))
        taken["took"].append(time.monotonic() - began)
        taken["cpu"].append(child.cpu_s() - before)
        taken["memory"].append(child.memory_mb())
        killed = _pid(admin)
        began = time.monotonic()
        os.kill(killed, signal.SIGKILL)
        while _pid(admin) in {0, killed} and time.monotonic() < began + SWITCHED_S:
            time.sleep(0.005)
        taken["replaced"].append(time.monotonic() - began)


def _pid(admin: AdminClient) -> int:
    """Of the process of the module that is killed; 0 while it is not ready."""
    status: dict[str, Any] = asyncio.run(admin.ask("status"))
    (workload,) = [each for each in status["workloads"] if KILLED in each["modules"]]
    (replica,) = workload["replicas"]
    return replica["pid"] if replica["state"] == "ready" else 0


FAMILIES = (
    Family(
        {
            "switch_to_services_s": "",
            "switch_to_services_cpu_s": "≥ 1.5 times",
            "services_memory_mb": "",
            "worker_replaced_s": "≤ 2 s",
        },
        switched,
    ),
)
