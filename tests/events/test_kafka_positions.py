"""What is committed of a partition, and what a successor makes of it."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seamline.events.brokers.kafka import positions
from seamline.events.brokers.kafka.positions import Positions, Seen

STEPS = st.lists(st.tuples(st.sampled_from(["read", "done", "crash", "crash unsaid"]), st.integers(0, 30)), max_size=80)
HOLES = st.sets(st.integers(0, 60), max_size=20)


@given(STEPS, HOLES, st.sampled_from([40, 3800]))
def test_no_open_record_is_passed_and_no_done_one_comes_again(
    steps: list[tuple[str, int]], holes: set[int], characters_max: int
) -> None:
    """Whatever is read, acknowledged and handed on: a member begins at or before the oldest open record, is given every
    open one, and none that was done when the note it has was written, unless the note had no room for it."""
    log = [offset for offset in range(60) if offset not in holes]
    done: set[int] = set()
    said: set[int] = set()
    handed: set[int] = set()
    held = Positions(0)
    committed, note = 0, ""
    whole = positions._NOTE_CHARACTERS_MAX
    positions._NOTE_CHARACTERS_MAX = characters_max
    try:
        for what, number in steps:
            if what == "read":
                following = [offset for offset in log if offset >= held.position]
                if following:
                    seen = held.read(following[0], 1)
                    assert seen is not Seen.DONE or following[0] in said
                    if seen is not Seen.DONE:
                        assert characters_max < 100 or following[0] not in said
                        handed.add(following[0])
            elif what == "done" and number in handed:
                held.done(number)
                done.add(number)
            elif what.startswith("crash"):
                if what == "crash":
                    committed, note = held.committable, held.note()
                    said = done & {offset for offset in log if offset < held.position} | {
                        offset for offset in said if offset in done
                    }
                assert len(note) <= characters_max + 4
                assert all(offset in done or offset >= committed for offset in log)
                held, handed = Positions(committed, note), set[int]()
        while following := [offset for offset in log if offset >= held.position]:
            if held.read(following[0], 1) is Seen.DONE:
                assert following[0] in done
    finally:
        positions._NOTE_CHARACTERS_MAX = whole


@given(st.text(max_size=30))
def test_note_of_another_client_means_nothing(note: str) -> None:
    """A note that is not ours is passed over: everything after the committed offset is handed out."""
    if not note.strip("0123456789 \t+-_") and any(letter.isdigit() for letter in note):
        return
    held = Positions(5, note)
    assert [held.read(offset, 1) for offset in range(5, 9)] == [Seen.NEW] * 4
    assert (held.committable, held.open) == (5, 4)


def test_oldest_open_record_is_where_a_successor_begins() -> None:
    """Acknowledged out of order, with holes in the offsets: the commit waits for the oldest, the note has the rest."""
    held = Positions(10)
    for offset in (10, 11, 15, 16, 20):
        held.read(offset, 100 + offset)
    for offset in (20, 11, 15):
        held.done(offset)
    assert (held.committable, held.open, held.oldest_ms, held.note()) == (10, 2, 110, "21 10 6")
    again = Positions(10, held.note())
    assert [again.read(offset, 1) for offset in (10, 11, 15, 16, 20, 21)] == [
        Seen.OPEN, Seen.DONE, Seen.DONE, Seen.OPEN, Seen.DONE, Seen.NEW,
    ]  # fmt: skip
    held.done(10)
    held.done(16)
    assert (held.committable, held.open, held.oldest_ms, held.note()) == (21, 0, 0, "")
