"""An application with versions of a model, as `seamline up` runs it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from seamline.kernel.errors import SeamlineError
from seamline.models.registry import Registry
from seamline.run.admin import AdminClient

APP = Path(__file__).parent / "guess_app"
WAIT_S = 40.0


class Up:
    """The application in its folder, which outlives its supervisors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / ".seamline"
        self.log = folder / "output.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def registry(self) -> Registry:
        return Registry(self.data / "models")

    def start(self, topology: str = "services") -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "seamline.cli", "up", "--topology", topology, "--app", str(self.folder)],
                stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self.until(self.ready)

    def ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        status = self.ask("status")
        every = [each for workload in status["workloads"] for each in workload["replicas"]]
        return bool(every) and all(each["state"] == "ready" for each in every)

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        return asyncio.run(AdminClient(self.data).ask(op, **arguments))

    def until(self, found: Callable[[], Any]) -> Any:
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            with contextlib.suppress(SeamlineError, OSError):
                if value := found():
                    return value
            time.sleep(0.02)
        raise AssertionError(self.log.read_text())

    def weights(self, contract: str = "Guess") -> dict[str, float]:
        return self.ask("models")["contracts"][contract]["split"]["weights"]

    def guesses(self, users: Iterator[str] | range | list[str]) -> Counter[str]:
        """Which versions answered these users; ``failed`` for those that got none."""
        parts = urlsplit(str(self.ask("status")["url"]))
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=WAIT_S)
        found: Counter[str] = Counter()
        try:
            for user in users:
                connection.request("GET", f"/{user}/Text")
                answer = connection.getresponse()
                body = answer.read()
                found[json.loads(body)[0] if answer.status == 200 else "failed"] += 1
        finally:
            connection.close()
        return found

    def kill(self) -> None:
        """As a machine that loses its power does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            try:
                process.wait(WAIT_S)
            finally:
                process.kill()
                process.wait()


def copied(folder: Path) -> Up:
    """The application in a folder of its own, with the files that one of its versions needs."""
    shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("__pycache__"))
    up = Up(folder)
    (folder / "words").mkdir()
    (folder / "words" / "words.txt").write_text("from the registry")
    up.registry.add("oracle", "1", str(folder / "words"), who="test")
    return up


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    made = copied(tmp_path / "app")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """It runs as services."""
    made = copied(tmp_path_factory.mktemp("guessing") / "app")
    made.start()
    yield made
    made.stop()
