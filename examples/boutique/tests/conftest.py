"""The boutique's tests run from any folder: its own folder goes onto the import path, as `seamline up` does it."""

# ruff: noqa: INP001  # a folder of tests, not a package

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[1]
if str(APP) not in sys.path:
    sys.path.insert(0, str(APP))


@pytest.fixture(scope="session", autouse=True)
def _reviews_of_the_test() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """The reviews app reads its own setting; tests give it a file that goes away with them."""
    with tempfile.TemporaryDirectory(prefix="reviews-") as folder:
        os.environ["REVIEWS_DB"] = f"{folder}/reviews.sqlite3"  # noqa: TID251  # as its operators would set it
        yield
        os.environ.pop("REVIEWS_DB", None)  # noqa: TID251
