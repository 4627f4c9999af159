"""One run of the benchmarks: its folder, its certificates, its children, and how long it may take."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from benchmarks.certificates import Authority
from benchmarks.order import SAMPLE
from benchmarks.processes import Child, client_core, python, server_core

START_S = 30


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to look. ``seconds`` is the length of one round of one side."""

    rounds: int
    seconds: float
    warm_up_s: float

    @property
    def load(self) -> dict[str, Any]:
        """The load of every remote-call row: 64 calls in flight, each caller calling again when answered."""
        return {"loop": "closed", "in_flight": 64, "seconds": self.seconds}


FULL = Effort(rounds=5, seconds=2.0, warm_up_s=1.0)
QUICK = Effort(rounds=2, seconds=0.4, warm_up_s=0.2)


class Session:
    """Owns everything that a family of rows starts; leaving it stops every child, whatever happened."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextmanager
    def inner(self) -> Iterator[Session]:
        """Children that stop earlier than the rest; certificates and folder are shared."""
        session = Session(self.effort)
        session.folder = self.folder
        with session._stack:
            yield session

    def certificates(self) -> Path:
        folder = self.folder / "certificates"
        if not folder.exists():
            folder.mkdir()
            authority = Authority(folder)
            authority.issue("server")
            authority.issue("client")
        return folder

    def server(self, name: str, module: str, *arguments: str) -> tuple[Child, dict[str, Any]]:
        """A Python server on the servers' core, once it has said that it is ready, and what it said."""
        child = self.start(Child(python(module, *arguments), cores=server_core(), name=name))
        return child, child.answer(START_S)

    def driver(self, name: str, module: str, *arguments: str) -> Child:
        """A load driver on the clients' core, connected and ready for commands."""
        child = self.start(Child(python(module, *arguments), cores=client_core(), name=name))
        child.answer(START_S)
        return child

    def http_driver(self, title: str, port: int, path: str, **options: Any) -> Child:
        """The lean HTTP client, posting the sample order."""
        body = msgspec.json.encode(options.pop("body", SAMPLE)).decode()
        options |= {"port": port, "path": path, "body": body}
        return self.driver(title, "benchmarks.http_driver", json.dumps(options))

    def start(self, child: Child) -> Child:
        return self._stack.enter_context(child)
