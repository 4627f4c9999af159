"""The boutique's tests run from any folder: its own folder goes onto the import path, as `seamline up` does it."""

# ruff: noqa: INP001  # a folder of tests, not a package

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from boutique.shipping import Shipping

APP = Path(__file__).resolve().parents[1]
if str(APP) not in sys.path:
    sys.path.insert(0, str(APP))


def _fixtures_of_the_project() -> Any:
    """The real servers of the project's own tests, by path: two folders are called ``tests``."""
    spec = importlib.util.spec_from_file_location("servers_of_the_project", APP.parents[1] / "tests" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


postgres_server = _fixtures_of_the_project().postgres_server


@pytest.fixture(scope="session", autouse=True)
def _reviews_of_the_test() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """The reviews app reads its own setting; tests give it a file that goes away with them."""
    with tempfile.TemporaryDirectory(prefix="reviews-") as folder:
        os.environ["REVIEWS_DB"] = f"{folder}/reviews.sqlite3"  # noqa: TID251  # as its operators would set it
        yield
        os.environ.pop("REVIEWS_DB", None)  # noqa: TID251


@pytest.fixture
async def shipping(tmp_path: Path) -> AsyncIterator[Shipping]:
    """The inside of shipping with a database of its own."""
    from boutique.shipping.module import ShippingService
    from boutique.shipping.tables import metadata

    from seamline import Database
    from seamline.kernel.clock import ManualClock
    from seamline.kernel.store import sqlite_url

    async with Database(sqlite_url(tmp_path, "shipping"), "shipping", metadata) as db:
        await db.run_sync(metadata.create_all)
        yield ShippingService(db, ManualClock())
