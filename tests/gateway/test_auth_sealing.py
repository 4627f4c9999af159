"""The keys that seal cookies: shared, renewed with overlap, for one purpose each, and for their owner only."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from seamline.gateway.auth.errors import SealError
from seamline.gateway.auth.sealing import Sealer
from seamline.kernel.clock import ManualClock, SystemClock

DAY_S = 86_400


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Sealer]:
    def sealer(clock: ManualClock, keep_s: int = 43_200, secret: str = "") -> Sealer:
        made = Sealer(tmp_path / "identity" / "keys.json", clock, keep_s=keep_s, secret=secret)
        made.prepare()
        return made

    return sealer


def test_what_one_seals_another_opens(make: Callable[..., Sealer], tmp_path: Path):
    """Two gateways of one application; nobody but the owner may read the file."""
    clock = ManualClock()
    assert make(clock).open(b"p", make(clock).seal(b"p", b"hello")) == b"hello"
    assert (tmp_path / "identity" / "keys.json").stat().st_mode & 0o777 == 0o600


def test_a_purpose_is_part_of_the_seal(make: Callable[..., Sealer]):
    """A sealed code is no cookie."""
    sealer = make(ManualClock())
    assert sealer.open(b"cookie", sealer.seal(b"code", b"hello")) is None


def test_keys_are_renewed_and_old_seals_still_open(make: Callable[..., Sealer]):
    """After a day there is a new key, used when all have had time to read it; the old one goes in the end."""
    clock = ManualClock()
    one, other = make(clock), make(clock)
    first = one.seal(b"p", b"old")
    clock.advance(DAY_S + 1)
    one.prepare()
    assert one.seal(b"p", b"new")[:5] == first[:5], "not yet: another may not have it"
    clock.advance(61)
    second = one.seal(b"p", b"new")
    assert second[:5] != first[:5]
    assert other.open(b"p", second) == b"new"  # read when first met
    assert other.open(b"p", first) == b"old"
    for _ in range(3):
        clock.advance(DAY_S)
        one.prepare()
    clock.advance(61)
    one.prepare()
    assert one.open(b"p", first) is None


def test_secrets_in_place_of_the_file(make: Callable[..., Sealer], tmp_path: Path):
    """Gateways that share no folder share a secret; with two, the first seals and both open."""
    clock = ManualClock()
    old, new = "o" * 32, "n" * 32
    sealed = make(clock, secret=old).seal(b"p", b"hello")
    both = make(clock, secret=f"{new} {old}")
    assert both.open(b"p", sealed) == b"hello"
    assert make(clock, secret=new).open(b"p", both.seal(b"p", b"hello")) == b"hello"
    assert make(clock, secret=new).open(b"p", sealed) is None
    assert not (tmp_path / "identity").exists()
    with pytest.raises(SealError, match="shorter than 32"):
        make(clock, secret="short")


def test_a_broken_file_is_told(make: Callable[..., Sealer], tmp_path: Path):
    """With what to do; the key is not in the sentence."""
    make(ManualClock())
    file = tmp_path / "identity" / "keys.json"
    file.write_text('{"keys": [', encoding="utf-8")
    with pytest.raises(SealError, match="Delete it"):
        make(ManualClock())


@pytest.mark.parametrize("sealed", ["", "A", "AAAA", "é", "=" * 50, "A" * 60, "_-" * 40])
def test_what_nobody_sealed_does_not_open(make: Callable[..., Sealer], sealed: str):
    assert make(ManualClock()).open(b"p", sealed) is None


def _prepare(path: str) -> str:
    sealer = Sealer(Path(path), SystemClock(), keep_s=60)
    sealer.prepare()
    return sealer.seal(b"p", b"hello")


def test_many_processes_that_start_at_once_make_one_key(tmp_path: Path):
    """Whoever comes first makes it."""
    path = str(tmp_path / "identity" / "keys.json")
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        sealed = pool.map(_prepare, [path] * 8)
    sealer = Sealer(Path(path), SystemClock(), keep_s=60)
    sealer.prepare()
    assert [sealer.open(b"p", each) for each in sealed] == [b"hello"] * 8
