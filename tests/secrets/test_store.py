"""The sealed file: nothing readable on disk, nothing that was moved opens, and a death at any moment loses nothing."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from seamline.secrets.backends.file import FileBackend
from seamline.secrets.errors import (
    MasterKeyError,
    RotationError,
    SealBrokenError,
    SecretsError,
    UnknownSecretError,
)
from seamline.secrets.keys import LocalKeys, id_of, key_file, keys_from_text

HOUR_MS = 3_600_000
CANARY = b"canary-8d1f-value"


def opened(folder: Path, app: str = "shop") -> FileBackend:
    return FileBackend(folder, app, lambda make: key_file(folder / "master.key", make=make))


def put(store: FileBackend, value: bytes, name: str = "key", now_ms: int = 1, overlap_ms: int = HOUR_MS) -> str:
    return store.write(name, value, after=None, until_ms=now_ms + overlap_ms, now_ms=now_ms, by="test")


def test_nothing_on_disk_can_be_read(tmp_path: Path):
    """Neither value nor master key nor data key stands anywhere in the folder but the key in its own file."""
    store = opened(tmp_path / "s")
    for _ in range(20):
        put(store, CANARY)
    store.delete("key", 2)
    put(store, CANARY, "other")
    store.close()
    key = keys_from_text((tmp_path / "s" / "master.key").read_text(), "")[0]
    for path in (tmp_path / "s").iterdir():
        content = path.read_bytes()
        assert CANARY not in content
        assert key not in content
        assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700


def test_a_version_whose_time_is_over_is_destroyed_on_disk(tmp_path: Path):
    """Its ciphertext and its wrapped key are overwritten, not only unlinked."""
    store = opened(tmp_path)
    put(store, CANARY)
    row = sqlite3.connect(store.path).execute("SELECT wrapped, sealed FROM versions").fetchone()
    put(store, b"next", now_ms=10)
    assert all(part in store.path.read_bytes() for part in row)
    assert store.destroy_ended(10 + HOUR_MS) == 1
    store.close()
    assert not any(part in store.path.read_bytes() for part in row)


def test_the_one_before_is_valid_for_the_overlap(tmp_path: Path):
    """Both are given meanwhile, the newest first; after it the old one is gone."""
    store = opened(tmp_path)
    put(store, b"one")
    put(store, b"two", now_ms=100)
    assert [each.reveal() for each in store.valid("key", 100)] == ["two", "one"]
    assert store.read("key", "1", HOUR_MS + 99).reveal() == "one"
    for version in ("1", "3", "x", "-1"):
        with pytest.raises(UnknownSecretError):
            store.read("key", version, HOUR_MS + 100)
    assert [each.reveal() for each in store.valid("key", HOUR_MS + 100)] == ["two"]


SWAPS = [
    "UPDATE versions SET sealed = (SELECT sealed FROM versions WHERE name = 'b') WHERE name = 'a'",
    "UPDATE versions SET (sealed, wrapped) = (SELECT sealed, wrapped FROM versions WHERE name = 'b') WHERE name = 'a'",
    "DELETE FROM versions WHERE name = 'a'; UPDATE versions SET name = 'a'",
    "UPDATE versions SET version = 7 WHERE name = 'a'",
    "UPDATE versions SET sealed = substr(sealed, 1, length(sealed) - 1) WHERE name = 'a'",
    "UPDATE versions SET sealed = x'00' WHERE name = 'a'",
    "UPDATE versions SET wrapped = zeroblob(60) WHERE name = 'a'",
]


@pytest.mark.parametrize("swap", SWAPS)
def test_what_was_moved_or_changed_does_not_open(tmp_path: Path, swap: str):
    """A row under another name or version, another's ciphertext, with its key or without, a cut one."""
    store = opened(tmp_path)
    put(store, b"value a", "a")
    put(store, b"value b", "b")
    store.close()
    with sqlite3.connect(tmp_path / "secrets.sqlite3") as file:
        file.executescript(swap)
    store = opened(tmp_path)
    with pytest.raises(SealBrokenError) as raised:
        store.read("a", "", 2)
    assert "value" not in str(raised.value).partition("SL4602")[0]


def test_another_applications_secrets_do_not_open(tmp_path: Path):
    """Even with the same master key."""
    put(opened(tmp_path), b"x")
    with pytest.raises(SealBrokenError):
        opened(tmp_path, "other").read("key", "", 2)


def chmod(mode: int) -> Callable[[Path], None]:
    return lambda path: path.chmod(mode)


HARM: list[tuple[Callable[[Path], object], str]] = [
    (chmod(0o640), "mode 0640"),
    (chmod(0o604), "mode 0604"),
    (lambda path: path.unlink(), "missing"),
    (lambda path: path.write_text(""), "no master key"),
    (lambda path: path.write_text("AAAA"), "not 32 bytes"),
    (lambda path: path.write_bytes(b"\xff" * 44), "cannot be read"),
    (lambda path: path.write_text("!" * 44), "not 32 bytes"),
]


@pytest.mark.parametrize(("harm", "fact"), HARM)
def test_a_master_key_that_is_not_right_stops_everything(tmp_path: Path, harm: Callable[[Path], object], fact: str):
    """Open to others, missing, empty, damaged: told with the file's place, and no new one is made over it."""
    store = opened(tmp_path)
    put(store, b"x")
    store.close()
    harm(tmp_path / "master.key")
    with pytest.raises(MasterKeyError, match=fact):
        opened(tmp_path)


def test_a_wrong_master_key_is_named_by_its_id(tmp_path: Path):
    """What is sealed says with which key, so that one knows which to bring."""
    store = opened(tmp_path)
    put(store, b"x")
    right = store.master.newest
    store.close()
    wrong = os.urandom(32)
    other = FileBackend(tmp_path, "shop", lambda _: LocalKeys(lambda: [wrong]))
    with pytest.raises(MasterKeyError, match=f"{right}.*{id_of(wrong)}"):
        other.read("key", "", 2)


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user's file")
def test_a_key_of_another_user_is_refused(tmp_path: Path):
    """Its owner could change it."""
    opened(tmp_path).close()
    os.chown(tmp_path / "master.key", 12345, -1)
    with pytest.raises(MasterKeyError, match="user 12345"):
        opened(tmp_path)


def test_a_store_open_to_others_is_refused(tmp_path: Path):
    """As the key is."""
    store = opened(tmp_path)
    store.close()
    store.path.chmod(0o644)
    with pytest.raises(MasterKeyError, match="0644"):
        opened(tmp_path)


def test_a_file_that_is_no_store_is_told_so(tmp_path: Path):
    """And nothing is written over it."""
    (tmp_path / "secrets.sqlite3").write_bytes(b"not a database" * 100)
    (tmp_path / "secrets.sqlite3").chmod(0o600)
    with pytest.raises(SecretsError, match="cannot be used"):
        opened(tmp_path)
    assert (tmp_path / "secrets.sqlite3").read_bytes().startswith(b"not a database")


def test_the_master_key_is_replaced_while_others_read(tmp_path: Path):
    """A second process that has the store open reads before, amid and after; the old key opens nothing any more."""
    store, other = opened(tmp_path), opened(tmp_path)
    for number in range(5):
        put(store, f"value {number}".encode(), f"key-{number}")
    old = keys_from_text((tmp_path / "master.key").read_text(), "")
    ciphertexts = sqlite3.connect(store.path).execute("SELECT sealed FROM versions ORDER BY name").fetchall()
    assert store.rotate_master() == 5
    assert [other.read(f"key-{n}", "", 2).reveal() for n in range(5)] == [f"value {n}" for n in range(5)]
    put(other, b"later", "late")
    assert store.read("late", "", 2).reveal() == "later"
    assert (
        sqlite3.connect(store.path).execute("SELECT sealed FROM versions WHERE name <> 'late' ORDER BY name").fetchall()
        == ciphertexts
    )
    store.close()
    behind = FileBackend(tmp_path, "shop", lambda _: LocalKeys(lambda: old))
    with pytest.raises(MasterKeyError):
        behind.read("key-0", "", 2)


def test_who_writes_amid_a_rotation_writes_with_the_new_key(tmp_path: Path):
    """A process that knows only the old key seals nothing with it that nobody could open afterwards."""
    store, other = opened(tmp_path), opened(tmp_path)
    put(store, b"x")
    store.rotate_master()
    put(other, b"later", "late")
    store.close()
    other.close()
    assert opened(tmp_path).read("late", "", 2).reveal() == "later"


def test_keys_in_the_environment_rotate_by_two_at_once(tmp_path: Path):
    """The new one first, then the old; after the rotation the new one alone opens everything."""
    new, old = os.urandom(32), os.urandom(32)
    first = FileBackend(tmp_path, "shop", lambda _: LocalKeys(lambda: [old]))
    put(first, b"x")
    with pytest.raises(MasterKeyError, match="holds one key"):
        first.rotate_master()
    assert FileBackend(tmp_path, "shop", lambda _: LocalKeys(lambda: [new, old])).rotate_master() == 1
    assert FileBackend(tmp_path, "shop", lambda _: LocalKeys(lambda: [new])).read("key", "", 2).reveal() == "x"


def test_a_rotation_is_refused_where_somebody_was_faster(tmp_path: Path):
    """Compare and set: the second of two that saw the same version writes nothing."""
    store = opened(tmp_path)
    put(store, b"one")
    store.write("key", b"two", after="1", until_ms=2, now_ms=1, by="a")
    with pytest.raises(RotationError, match="SL4609"):
        store.write("key", b"three", after="1", until_ms=2, now_ms=1, by="b")
    assert store.read("key", "", 1).reveal() == "two"


def test_versions_go_on_after_a_deletion(tmp_path: Path):
    """A version's number is never used again, so that equal numbers are equal values."""
    store = opened(tmp_path)
    put(store, b"one")
    store.delete("key", 5)
    with pytest.raises(UnknownSecretError):
        store.read("key", "", 5)
    with pytest.raises(UnknownSecretError):
        store.delete("key", 5)
    assert put(store, b"two", now_ms=6) == "2"
    assert [each.reveal() for each in store.valid("key", 7)] == ["two"]


def test_a_death_at_any_moment_loses_nothing_that_was_promised(tmp_path: Path):
    """kill -9 swept over writing and master key rotation: each promised version opens, with its own value."""
    draw = random.Random(5)
    child = Path(__file__).with_name("sweep_child.py")
    promised: dict[str, str] = {}
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, str(child), str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            for _ in range(draw.randrange(1, 8)):
                version, number = process.stdout.readline().split()
                promised[version] = f"value-{number}"
            spin = time.perf_counter() + draw.random() * 0.01
            while time.perf_counter() < spin:
                pass
            process.kill()
            for line in process.stdout.read().splitlines():
                if len(line.split()) == 2:
                    promised[line.split()[0]] = f"value-{line.split()[1]}"
        store = opened(tmp_path)
        now_ms = int(time.time() * 1000)
        for version, value in promised.items():
            assert store.read("key", version, now_ms).reveal() == value
        store.close()
    store = opened(tmp_path)
    store.rotate_master()
    assert len(keys_from_text((tmp_path / "master.key").read_text(), "")) == 1
    assert {each.name for each in tmp_path.iterdir()} == {"master.key", "secrets.sqlite3"}, "no drafts with keys"
