"""`seamline identity` asks what is meant, and makes certificates that prove their holder at the public port only."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store

from seamline.cli.app import run
from seamline.gateway.auth.certificates import identity_of

_DER = Encoding.DER
TOML = '[app]\nname = "shop"\nmodules = ["shop.orders", "shop.payments"]\n'


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "seamline.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def kept(shop: Path) -> list[dict[str, Any]]:
    lines = (shop / ".seamline" / "identity" / "revocations.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("name", ["urn:acme:billing", "billing@acme.example"])
def test_a_client_is_known_by_the_name_it_was_made_for(shop: Path, name: str, capsys: pytest.CaptureFixture[str]):
    """Its chain holds at the client authority, its key is its owner's only, and it ends when it should."""
    assert run(["identity", "issue-client", name, "--valid", "7d", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    leaf = x509.load_pem_x509_certificate(Path(told["certificate"]).read_bytes())
    root = x509.load_pem_x509_certificate(Path(told["client_ca"]).read_bytes())
    leaf.verify_directly_issued_by(root)
    assert identity_of(leaf.public_bytes(_DER)) == name
    assert leaf.not_valid_after_utc - datetime.now(UTC) < timedelta(days=7)
    for path in (Path(told["key"]), Path(told["client_ca"]).with_name("ca.key")):
        assert path.stat().st_mode & 0o077 == 0
    again = Path(told["client_ca"]).read_bytes()
    assert run(["identity", "issue-client", "urn:acme:other"]) == 0
    assert Path(told["client_ca"]).read_bytes() == again
    verifier = PolicyBuilder().store(Store([root])).build_client_verifier()
    assert verifier.verify(leaf, []).chain


@pytest.mark.parametrize(
    "words",
    [
        ["issue-client", "no name"],
        ["issue-client", "spiffe"],
        ["issue-client", "urn:x:y", "--valid", "0d"],
        ["issue-client", "urn:x:y", "--valid", "9999d"],
        ["issue-client", "../x"],
        ["revoke"],
        ["quarantine", "nobody"],
    ],
)
def test_what_makes_no_sense_is_refused(shop: Path, words: list[str]):
    assert run(["identity", *words]) not in (0, 70)
    assert not list(shop.glob("*.key"))


def test_several_are_revoked_at_once_and_lifted(shop: Path):
    """In one word; the last word about a program counts."""
    assert run(["identity", "revoke", "--session", "s1", "--client", "k1", "--client", "k2", "--reason", "lost"]) == 0
    assert [(each["kind"], each["id"], each["reason"]) for each in kept(shop)] == [
        ("session", "s1", "lost"), ("client", "k1", "lost"), ("client", "k2", "lost"),
    ]  # fmt: skip
    assert run(["identity", "revoke", "--client", "k1", "--lift"]) == 0
    assert kept(shop)[-1]["lifted"] is True
