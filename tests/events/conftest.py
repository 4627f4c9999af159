"""Brokers for the tests of events: each is started at the first test that wants it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.events import contenders  # noqa: F401  # enters them
from tests.events.conformance import CONTENDERS, Arena, Broker


@pytest.fixture(scope="session")
def brokers() -> Generator[dict[str, Broker]]:
    """Those that have been started, by name."""
    with ExitStack() as stack:
        started: dict[str, Broker] = {}
        started_by = _Started(stack, started)
        yield started_by


class _Started(dict[str, Broker]):
    def __init__(self, stack: ExitStack, _: dict[str, Broker]) -> None:
        super().__init__()
        self._stack = stack

    def __missing__(self, name: str) -> Broker:
        broker = self[name] = self._stack.enter_context(CONTENDERS[name].serve())
        return broker


@pytest.fixture(params=list(CONTENDERS))
async def arena(request: pytest.FixtureRequest, brokers: dict[str, Broker], tmp_path: Path) -> AsyncGenerator[Arena]:
    """An application of its own on each broker in turn."""
    contender = CONTENDERS[str(request.param)]
    if not contender.installed():
        pytest.skip(f"{contender.missing} is not installed")
    for mark in request.node.iter_markers("wants"):
        if not getattr(contender, mark.args[0]):
            pytest.skip(f"{contender.name}: {contender.lacks.get(mark.args[0], mark.args[0])}")
    async with Arena(contender, brokers[contender.name], tmp_path) as arena:
        yield arena
