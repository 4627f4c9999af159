"""Brokers for the tests of events: each is started for the first test that wants it, and used by all that follow."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.events.conformance import Arena, Broker
from tests.events.contenders import CONTENDERS


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "wants(*qualities): of the ways that events can take, only those with them")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    named = any("contender" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "contender" in metafunc.fixturenames and not named:
        wanted = [quality for mark in metafunc.definition.iter_markers("wants") for quality in mark.args]
        fit = [name for name, each in CONTENDERS.items() if all(getattr(each, quality) for quality in wanted)]
        metafunc.parametrize("contender", fit)


class _Started(dict[str, Broker]):
    """Brokers by name; one that is asked for is started."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__()
        self._stack = stack

    def __missing__(self, name: str) -> Broker:
        broker = self[name] = self._stack.enter_context(CONTENDERS[name].serve())
        return broker


@pytest.fixture(scope="session")
def brokers() -> Generator[dict[str, Broker]]:
    with ExitStack() as stack:
        yield _Started(stack)


@pytest.fixture
async def arena(contender: str, brokers: dict[str, Broker], tmp_path: Path) -> AsyncGenerator[Arena]:
    """An application of its own on each broker in turn."""
    known = CONTENDERS[contender]
    if not known.installed():
        pytest.skip(f"{known.missing} is not installed")
    async with Arena(known, brokers[contender], tmp_path) as arena:
        yield arena
