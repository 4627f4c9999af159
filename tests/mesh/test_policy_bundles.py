"""Signed bundles: what is not signed, is for another, or is old, is not put in force; and the way back."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seamline.mesh.errors import BundleError, BundleReplayError, BundleSignatureError
from seamline.mesh.policy.bundles import Bundle, BundleStore, opened

KEY = Ed25519PrivateKey.generate()
FILES = {"shop.cedar": "permit (principal, action, resource);", "tests.toml": ""}


def bundle(sequence: int, *, key: Ed25519PrivateKey = KEY, app: str = "shop") -> bytes:
    return Bundle(app, sequence, FILES).signed(key)


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "policy", KEY.public_key(), "shop")


def test_a_bundle_is_what_was_signed(store: BundleStore):
    store.apply(bundle(3))
    assert store.current() == Bundle("shop", 3, FILES)
    assert store.current().cedar == {"bundle 3/shop.cedar": FILES["shop.cedar"]}


def test_without_a_bundle_there_is_no_policy(store: BundleStore):
    with pytest.raises(BundleError, match="none was applied"):
        store.current()


def by_another_key(data: bytes) -> bytes:
    _ = data
    return bundle(3, key=Ed25519PrivateKey.generate())


def with_fields(data: bytes, **changes: str) -> bytes:
    return json.dumps({**json.loads(data), **changes}).encode()


def with_another_signature(data: bytes) -> bytes:
    return with_fields(data, signature=base64.b64encode(b"x" * 64).decode())


def without_signature(data: bytes) -> bytes:
    return with_fields(data, signature="")


def with_another_policy(data: bytes) -> bytes:
    content = base64.b64decode(json.loads(data)["content"]).replace(b"permit", b"forbid")
    return with_fields(data, content=base64.b64encode(content).decode())


@pytest.mark.parametrize("change", [by_another_key, with_another_signature, without_signature, with_another_policy])
def test_a_wrong_signature_changes_nothing(store: BundleStore, change: Callable[[bytes], bytes]):
    store.apply(bundle(2))
    with pytest.raises(BundleSignatureError):
        store.apply(change(bundle(3)))
    assert store.current().sequence == 2
    store.apply(bundle(3))


@pytest.mark.parametrize("data", [b"", b"no", b"[]", b"{}", b'{"content": 1, "signature": 2}', b"\xff", b"[" * 100_000])
def test_what_is_no_bundle_is_said_to_be_none(data: bytes):
    with pytest.raises(BundleError):
        opened(data, KEY.public_key(), "shop")


def test_a_bundle_of_another_application_is_refused(store: BundleStore):
    with pytest.raises(BundleError, match="'bank'"):
        store.apply(bundle(3, app="bank"))


@pytest.mark.parametrize("sequence", [5, 4, 1])
def test_an_old_bundle_is_refused_though_it_is_signed(store: BundleStore, sequence: int):
    store.apply(bundle(4))
    store.apply(bundle(5))
    with pytest.raises(BundleReplayError):
        store.apply(bundle(sequence))
    assert store.current().sequence == 5


def test_going_back_does_not_open_the_door_to_what_was_left(store: BundleStore):
    """After a rollback the bundle that was left, and all before it, stay refused; a newer one is taken."""
    for sequence in (1, 2, 3):
        store.apply(bundle(sequence))
    assert store.rollback().sequence == 2
    assert store.rollback().sequence == 1
    with pytest.raises(BundleError, match="no bundle to go back to"):
        store.rollback()
    assert store.current().sequence == 1
    for sequence in (1, 2, 3):
        with pytest.raises(BundleReplayError):
            store.apply(bundle(sequence))
    store.apply(bundle(4))
    assert store.applied() == [1, 4]


def test_a_bundle_that_was_changed_where_it_lies_is_noticed(store: BundleStore, tmp_path: Path):
    store.apply(bundle(1))
    (tmp_path / "policy" / "1.json").write_bytes(bundle(1, key=Ed25519PrivateKey.generate()))
    with pytest.raises(BundleSignatureError, match=r"1\.json"):
        store.current()
