"""The application under test with a supervisor in a process of its own, and settings that a test adds."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from seamline.run.admin import AdminClient

HERE = Path(__file__).parent
WAIT_S = 30.0


def until(found: Callable[[], Any]) -> Any:
    """What ``found`` gives once it gives something."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {WAIT_S:g} s")


class Up:
    """``seamline up``, with ``more`` at the end of its settings."""

    def __init__(self, folder: Path, topology: str, more: str, *, app: str = "", policy: str = "") -> None:
        self.folder = folder / (app or "app")
        shutil.copytree(HERE / "other_app", self.folder)
        toml = self.folder / "seamline.toml"
        text = toml.read_text(encoding="utf-8").replace("../service.mjs", str(HERE / "service.mjs"))
        toml.write_text(f"{text}\n{more}", encoding="utf-8")
        if policy:
            (self.folder / "policy" / "more.cedar").write_text(policy, encoding="utf-8")
        self.data = self.folder / ".seamline"
        self._topology = topology
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "seamline.cli", "up", "--app", str(self.folder), "--port", "0"]
        with (self.folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [*command, "-t", self._topology], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(HERE)},  # noqa: TID251  # for the child
            )  # fmt: skip

        def ready() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, self.output
            try:
                status = self.ask("status")
            except Exception:
                return False
            self.url = status["url"]
            return bool(status["ready"])

        until(ready)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(WAIT_S)

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text(encoding="utf-8")

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        return asyncio.run(AdminClient(self.data).ask(op, **arguments))

    def address(self, module: str) -> tuple[str, int]:
        found = self.ask("endpoints")["endpoints"][module][0]
        return found["host"], found["port"]

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=WAIT_S) as answer:
            return answer.read().decode()


def audited(up: Up, word: str) -> list[dict[str, Any]]:
    """Lines of all audit logs that hold a word."""
    lines = [line for file in (up.data / "audit").glob("*.jsonl") for line in file.read_text().splitlines()]
    return [json.loads(line) for line in lines if word in line]
