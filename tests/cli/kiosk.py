"""What the tests of ``seamline events`` and ``seamline sagas`` share: a real application, and what is asked of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from seamline.cli.app import run

START_S = 60
WAIT_S = 30.0


@contextmanager
def running(root: Path, files: dict[str, str]) -> Generator[Path]:
    """An application of these files, in one process for each module, started by the command line itself."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    where = ["--app", str(root)]
    up = [sys.executable, "-m", "seamline.cli", "up", "--detach", "--port", "0", "--topology", "services", *where]
    started = subprocess.run(up, capture_output=True, text=True, timeout=START_S, check=False)
    assert started.returncode == 0, started.stderr
    try:
        yield root
    finally:
        run(["down", *where])


class Asked:
    """Runs ``seamline <room> ...`` and reads what it printed."""

    def __init__(self, room: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._room = room
        self.folder = folder
        self._capsys = capsys

    def text(self, *words: str, status: int = 0) -> str:
        self._capsys.readouterr()
        found = run([self._room, *words, "--app", str(self.folder)])
        printed = self._capsys.readouterr()
        assert found == status, printed
        return printed.out + printed.err

    def json(self, *words: str, status: int = 0) -> Any:
        return json.loads(self.text(*words, "--json", status=status))

    def until(self, wanted: Callable[[Any], Any], *words: str) -> Any:
        """Ask until it is so: the application goes on meanwhile."""
        deadline_s = time.monotonic() + WAIT_S
        while True:
            found = self.json(*words)
            if wanted(found):
                return found
            assert time.monotonic() < deadline_s, found
            time.sleep(0.02)
