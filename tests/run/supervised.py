"""A small application in a folder of its own, and a supervisor in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from seamline.kernel.errors import SeamlineError
from seamline.run.admin import AdminClient
from seamline.run.control import WorkerOptions

HERE = Path(__file__).parent
TOML = """\
[app]
name = "shop"
modules = ["shop.front", "shop.cart", "shop.orders"]
{app}
[topologies.duo]
edge = ["front", "cart"]
back = "*"
[gateway]
listen = "127.0.0.1:{port}"
[run]
drain_timeout_s = 5
backoff_first_s = 0.05
backoff_longest_s = 0.3
heartbeat_s = 0.1
{run}
[telemetry]
log = "json"
{more}
"""
LAUNCH = """\
import json, sys
from seamline.kernel.errors import SeamlineError
from seamline.kernel.settings import Settings
from seamline.run import supervisor
options = json.loads(sys.argv[2])
def on_ready(status):
    if "unread" not in sys.argv:
        print(json.dumps({"ready": status}), flush=True)
options["on_ready"] = on_ready
try:
    status = supervisor.run(Settings.load(sys.argv[1]), **options)
except SeamlineError as error:
    print(json.dumps({"failed": error.to_json()}), flush=True)
    status = supervisor.exit_of(error)
sys.exit(status)
"""
WAIT_S = 30.0


def until(found: Callable[[], Any], what: str = "it") -> Any:
    """What ``found`` gives once it gives something."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        with contextlib.suppress(SeamlineError, OSError):
            if value := found():
                return value
        time.sleep(0.02)
    raise AssertionError(f"waited {WAIT_S:g} s for {what}")


def alive(pid: int) -> bool:
    """Whether the process runs; one that is dead and not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Running:
    """A supervisor under test."""

    def __init__(self, folder: Path, number: int, options: dict[str, Any]) -> None:
        self.folder = folder
        self.data = folder / ".seamline"
        self.log = folder / f"output-{number}.jsonl"
        given: int | None = options.pop("_output", None)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, str(folder), json.dumps(options), "" if given is None else "unread"],
                stdout=output if given is None else given,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(HERE)},  # noqa: TID251  # for the child
            )

    def lines(self) -> list[dict[str, Any]]:
        """What it printed."""
        found = self.log.read_text().splitlines()
        return [json.loads(text) if text.startswith("{") else {"message": text} for text in found]

    def messages(self) -> str:
        return "\n".join(str(line.get("message", "")) for line in self.lines())

    def until_ready(self) -> Running:
        def look() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return any("ready" in line for line in self.lines())

        until(look, "ready")
        return self

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        return asyncio.run(AdminClient(self.data).ask(op, **arguments))

    def status(self) -> dict[str, Any]:
        return self.ask("status")

    def replicas(self) -> dict[str, dict[str, Any]]:
        """By label."""
        return {
            f"{workload['name']}#{each['replica']}" if each["replica"] else workload["name"]: each
            for workload in self.status()["workloads"]
            for each in workload["replicas"]
        }

    def pids(self) -> dict[str, int]:
        return {label: each["pid"] for label, each in self.replicas().items()}

    def get(self, path: str = "/") -> dict[str, Any]:
        with urllib.request.urlopen(self.url + path, timeout=WAIT_S) as answer:
            return json.load(answer)

    def get_cut_off(self, path: str) -> None:
        """A request that the server's end cuts off."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.get(path)
            raise AssertionError("the request was answered")

    @property
    def url(self) -> str:
        return next(line["ready"]["url"] for line in self.lines() if "ready" in line)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(WAIT_S)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def worker_options(folder: Path, mesh: int, public: int, **changes: Any) -> WorkerOptions:
    """Of a worker of ``orders`` whose supervisor is this test."""
    options = WorkerOptions(
        folder=str(folder),
        data=str(folder),
        control=str(folder / "control.sock"),
        supervisor_pid=os.getpid(),
        workload="orders",
        replica=0,
        generation=1,
        modules=["orders"],
        mesh=mesh,
        public=public,
        ai=-1,
        log_level="info",
        host_factory="stand_in:host",
    )
    return msgspec.structs.replace(options, **changes)


class Starter:
    """Makes applications and starts supervisors on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[Running] = []
        self.write()

    def write(self, *, port: int = 0, app: str = "", run: str = "", more: str = "") -> None:
        text = TOML.format(port=port, app=app, run=run, more=more)
        (self.folder / "seamline.toml").write_text(text)

    def order(self, **orders: str) -> None:
        """Tell the stand-in hosts what to do from their next start on."""
        data = self.folder / ".seamline"
        data.mkdir(exist_ok=True)
        (data / "orders.json").write_text(json.dumps(orders))

    def __call__(self, **options: Any) -> Running:
        running = Running(
            self.folder, len(self.running), {"host_factory": "stand_in:host", "observe": False, **options}
        )
        self.running.append(running)
        return running
