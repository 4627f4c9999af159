"""What can be wrong with the declaration of an event is said where it is declared."""

from __future__ import annotations

import pytest

from seamline import Event
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
