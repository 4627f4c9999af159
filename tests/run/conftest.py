"""Supervisors in processes of their own, ended with the test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from shop import write_shop
from supervised import Starter


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    starter = Starter(tmp_path)
    yield starter
    for running in starter.running:
        running.kill()


@pytest.fixture
def shop(start: Starter) -> Starter:
    """The starter, with the sources of a real application in its folder."""
    write_shop(start.folder)
    return start
