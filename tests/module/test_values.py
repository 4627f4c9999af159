"""What can be wrong with the declaration of an event, or of its handler, is said where it is declared."""

from __future__ import annotations

from datetime import datetime

import pytest

from seamline import Event, Module
from seamline.module.errors import EventError


def test_a_key_is_one_of_the_fields():
    with pytest.raises(EventError, match="has the key 'code', which is none of its fields") as caught:

        class Moved(Event, key="code"):  # pyright: ignore[reportUnusedClass]
            sku: str

    assert caught.value.place == __name__


def test_what_is_compacted_has_a_key():
    """Of which the newest is kept."""
    with pytest.raises(EventError, match="'Priced' is compacted and has no key"):

        class Priced(Event, compacted=True):  # pyright: ignore[reportUnusedClass]
            sku: str


def test_an_upcaster_starts_at_a_version_that_was():
    class Moved(Event, version=2):
        sku: str

    for version in (0, 2):
        with pytest.raises(EventError, match=rf"Moved.upcast\({version}\) is for a version that is not older than 2"):
            Moved.upcast(version)(dict)


def test_a_handler_starts_at_a_time_that_is_the_same_everywhere():
    """One without a time zone would be another moment on each machine."""

    class Moved(Event):
        sku: str

    module = Module("books")
    with pytest.raises(EventError, match="starts at 2026-03-01 12:00:00, of no time zone"):

        @module.on(Moved, start=datetime(2026, 3, 1, 12))  # noqa: DTZ001  # what is refused
        async def enter(event: Moved) -> None: ...  # pyright: ignore[reportUnusedFunction]
