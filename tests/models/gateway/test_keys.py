"""Virtual keys: known once, found by their digest, revoked everywhere at once."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from seamline.kernel.clock import ManualClock
from seamline.models.gateway.errors import AiGatewayError, KeyRefused, NotAllowed
from seamline.models.gateway.keys import LOOK_S, PREFIX, Key, Keys, caller
from seamline.models.gateway.quota import Limit

LIMIT = Limit(name="own", by="key", unit="money", most=5, per="day", models=("fast",))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_a_key_is_found_by_what_was_shown_once_and_by_nothing_else(tmp_path: Path, clock: ManualClock):
    """With all that it was made with, in another process, too; one letter more, less or other is no key."""
    keys = Keys(tmp_path / "keys.db", clock=clock)
    text, made = keys.make(
        "shop", by="ann", models=["fast", "slow"], limits=[LIMIT], tenant="acme", team="web", user="u", agent="bot"
    )
    assert text.startswith(PREFIX)
    assert len(text) > 40
    other = Keys(tmp_path / "keys.db", clock=clock)
    found = other.find(text.encode())
    assert found is not None
    assert {name: getattr(found, name) for name in Key.__slots__ if name != "__weakref__"} == {
        name: getattr(made, name) for name in Key.__slots__ if name != "__weakref__"
    }
    for wrong in (text + "x", text[:-1], text[:-1] + "!", text.upper(), "", PREFIX, made.id):
        assert keys.find(wrong.encode()) is None
    keys.close()
    other.close()


def test_the_file_does_not_hold_keys_and_is_for_its_owner(tmp_path: Path):
    """Neither the text nor a part of it that would help to guess it."""
    path = tmp_path / "keys.db"
    keys = Keys(path)
    text, _ = keys.make("shop")
    keys.close()
    held = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    body = text.removeprefix(PREFIX)
    assert not any(body[at : at + 8].encode() in held for at in range(len(body) - 7))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_revoked_key_is_refused_everywhere_within_a_second(tmp_path: Path, clock: ManualClock):
    """By who revoked it at once, and by another process when it looks next."""
    one, other = Keys(tmp_path / "keys.db", clock=clock), Keys(tmp_path / "keys.db", clock=clock)
    text, key = one.make("shop")
    clock.advance(LOOK_S)
    assert other.find(text.encode()) is not None
    one.revoke(key.id, by="ann")
    assert one.find(text.encode()) is None
    clock.advance(LOOK_S)
    assert other.find(text.encode()) is None
    with pytest.raises(KeyRefused, match="the key 'shop' was revoked"):
        other.admit(text.encode())
    assert LOOK_S < 1
    assert [each.revoked_ms > 0 for each in other.list()] == [True]
    with pytest.raises(AiGatewayError, match="no key 'key-0' to revoke"):
        one.revoke("key-0")
    one.close()
    other.close()


def test_a_key_ends_when_it_was_said_to(tmp_path: Path, clock: ManualClock):
    """To the millisecond, without anybody's doing."""
    keys = Keys(tmp_path / "keys.db", clock=clock)
    text, _ = keys.make("trial", expires_ms=int(clock.now().timestamp() * 1000) + 5000)
    clock.advance(4.9)
    assert keys.admit(text.encode()).name == "trial"
    clock.advance(0.1)
    with pytest.raises(KeyRefused, match="has expired"):
        keys.admit(text.encode())
    with pytest.raises(KeyRefused, match="there is no key"):
        keys.admit(b"")
    with pytest.raises(KeyRefused, match="is not known"):
        keys.admit(b"sk-sl-made-up")
    keys.close()


def test_a_key_asks_its_models_and_speaks_for_whom_it_says(tmp_path: Path):
    """A request cannot speak for another tenant than its key's; where the key says nothing, it can."""
    key = Key(id="k", models=frozenset({"fast"}), tenant="acme")
    key.allow("fast")
    with pytest.raises(NotAllowed, match="may not ask the model 'slow'"):
        key.allow("slow")
    Key(id="k").allow("anything")
    assert caller(key, "ann", "evil", "bot")[1:] == ("ann", "acme", "bot")


def test_keys_are_made_by_several_processes_at_once(tmp_path: Path):
    """Each has a revision of its own, so that nobody overlooks one."""
    several = [Keys(tmp_path / "keys.db") for _ in range(4)]
    texts = [several[number % 4].make(f"n{number}")[0] for number in range(40)]
    for keys in several:
        assert len(keys.list()) == 40
        assert all(keys.find(text.encode()) for text in texts)
        keys.close()
    with sqlite3.connect(tmp_path / "keys.db") as connection:
        (revisions,) = connection.execute("SELECT count(DISTINCT revision) FROM keys").fetchone()
    connection.close()
    assert revisions == 40
