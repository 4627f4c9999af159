"""What the supervisor keeps of trust outlives it, and says the same when it is read again."""

from __future__ import annotations

from pathlib import Path

from seamline.kernel.clock import ManualClock, now_ms
from seamline.run.revocations import RevocationBook
from seamline.run.trust import KEPT_S, Key, KeyBook


def key(kid: str, clock: ManualClock, lifetime_s: int = 3600) -> Key:
    begins = now_ms(clock) // 1000
    return (kid, "orders", "point", begins, begins + lifetime_s)


def test_a_key_of_long_ago_is_found_and_not_handed_to_everybody(tmp_path: Path):
    """What waited for weeks is checked with it; a worker that starts is told of those that sign now."""
    clock = ManualClock()
    book = KeyBook(tmp_path, clock)
    book.add([key("old", clock)])
    clock.advance(7200)
    book.add([key("new", clock)])
    for each in (book, KeyBook(tmp_path, clock)):
        assert [known[0] for known in each.current()] == ["new"]
        assert (each.find("old") or ("",))[0] == "old"
        assert each.find("../old") is None


def test_keys_are_forgotten_when_nothing_can_wait_for_them(tmp_path: Path):
    clock = ManualClock()
    KeyBook(tmp_path, clock).add([key("old", clock)])
    clock.advance(KEPT_S + 7200)
    book = KeyBook(tmp_path, clock)
    book.add([key("new", clock)])
    assert book.current()
    again = KeyBook(tmp_path, clock)
    again.current()
    assert again.find("old") is None
    assert (tmp_path / "keys.jsonl").stat().st_mode & 0o077 == 0


def test_a_line_that_was_cut_off_by_a_crash_is_passed_over(tmp_path: Path):
    clock = ManualClock()
    KeyBook(tmp_path, clock).add([key("one", clock)])
    RevocationBook(tmp_path, clock).add([{"kind": "session", "id": "s1"}])
    for file in ("keys.jsonl", "revocations.jsonl"):
        with (tmp_path / file).open("a") as lines:
            lines.write('["two", "orde')
    assert [known[0] for known in KeyBook(tmp_path, clock).current()] == ["one"]
    assert [each["id"] for each in RevocationBook(tmp_path, clock).entries()] == ["s1"]


def test_revocations_are_kept_lifted_and_forgotten(tmp_path: Path):
    clock = ManualClock()
    book = RevocationBook(tmp_path, clock)
    (session, user, module) = book.add(
        [{"kind": "session", "id": "s1"}, {"kind": "user", "id": "ann"}, {"kind": "module", "id": "orders"}]
    )
    assert session["before"] == 0
    assert user["before"] == now_ms(clock)
    assert module["until"] == 0
    clock.advance(31 * 86_400)
    assert [each["id"] for each in RevocationBook(tmp_path, clock).entries()] == ["orders"]
    RevocationBook(tmp_path, clock).add([{"kind": "module", "id": "orders", "lifted": True}])
    assert RevocationBook(tmp_path, clock).entries() == []
