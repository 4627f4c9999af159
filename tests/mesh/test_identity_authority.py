"""The certificate authority: what it issues, what it refuses, and how its root key is kept."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from seamline.kernel.clock import ManualClock
from seamline.mesh.errors import AuthorityError, CertificateRequestError, NotSpiffeError, SvidError
from seamline.mesh.identity import CertificateAuthority, SpiffeId, WorkloadIdentity, new_key_and_csr, next_rotation
from seamline.mesh.identity.keys import secret_file
from seamline.mesh.identity.rotation import BACKDATE, CLOCK_SKEW

DOMAIN, APP = "boutique.local", "boutique"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "ca"


def open_authority(folder: Path, *, passphrase: str | None = None, clock: ManualClock | None = None):
    return CertificateAuthority.load_or_create(folder, DOMAIN, APP, passphrase=passphrase, clock=clock)


def issue(authority: CertificateAuthority, module: str, lifetime_s: float = 3600) -> x509.Certificate:
    _, csr = new_key_and_csr()
    return x509.load_pem_x509_certificates(authority.issue(csr, module, lifetime_s))[0]


def uris(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def test_an_svid_follows_the_specification(folder: Path):
    """One URI, no CA, digitalSignature only, both purposes, P-256, an hour, backdated beyond the clock skew."""
    clock = ManualClock()
    leaf = issue(open_authority(folder, clock=clock), "payments")
    extensions = leaf.extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert uris(leaf) == ["spiffe://boutique.local/boutique/payments"]
    assert basic.critical
    assert not basic.value.ca
    assert usage.critical
    assert usage.value.digital_signature
    granted = (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.key_agreement)
    assert granted == (False, False, False)
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert leaf.not_valid_before_utc == clock.now() - BACKDATE
    assert clock.now() - CLOCK_SKEW > leaf.not_valid_before_utc
    assert leaf.not_valid_after_utc == clock.now() + timedelta(hours=1)
    assert leaf.serial_number.bit_length() > 100


def test_serial_numbers_differ(folder: Path):
    authority = open_authority(folder)
    assert len({issue(authority, "payments").serial_number for _ in range(20)}) == 20


def test_names_in_a_request_are_ignored(folder: Path):
    """A worker that asks to be somebody else, or an authority, gets what the supervisor attested and no more."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "payments")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://boutique.local/boutique/payments")]),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    chain = open_authority(folder).issue(csr.public_bytes(serialization.Encoding.PEM), "ads")
    leaf = x509.load_pem_x509_certificate(chain)
    assert uris(leaf) == ["spiffe://boutique.local/boutique/ads"]
    assert leaf.subject.rfc4514_string() == "CN=ads"
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def make_csr(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def tampered() -> bytes:
    """A request whose signature was made over something else."""
    request = x509.load_pem_x509_csr(new_key_and_csr()[1])
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    import base64

    body = base64.encodebytes(bytes(der)).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n".encode()


@pytest.mark.parametrize(
    ("csr", "fact"),
    [
        (b"nonsense", "cannot be read"),
        (b"", "cannot be read"),
        (tampered(), "not signed with its own key"),
        (make_csr(rsa.generate_private_key(65537, 2048)), "not ECDSA P-256"),
        (make_csr(ec.generate_private_key(ec.SECP384R1())), "not ECDSA P-256"),
    ],
    ids=["nonsense", "empty", "tampered", "rsa", "p384"],
)
def test_an_unacceptable_request_is_refused(folder: Path, csr: bytes, fact: str):
    with pytest.raises(CertificateRequestError, match=fact):
        open_authority(folder).issue(csr, "payments")


@pytest.mark.parametrize("lifetime_s", [0, -1, 86401, float("inf"), float("nan")])
def test_a_lifetime_out_of_bounds_is_refused(folder: Path, lifetime_s: float):
    with pytest.raises(CertificateRequestError, match="lifetime"):
        open_authority(folder).issue(new_key_and_csr()[1], "payments", lifetime_s)


@pytest.mark.parametrize("module", ["", "a/b", "../payments", "..", "a b", "pay?x", "ü", "x" * 64, "a\nb", "a\0"])
def test_a_module_name_cannot_reach_outside_its_segment(folder: Path, module: str):
    with pytest.raises(SvidError):
        open_authority(folder).issue(new_key_and_csr()[1], module)


def test_the_root_key_is_private(folder: Path):
    open_authority(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "authority.json").stat().st_mode) == 0o600


def test_nothing_but_the_authority_file_holds_a_key(folder: Path):
    open_authority(folder).rotate_root()
    with_keys = [path.name for path in folder.iterdir() if b"PRIVATE KEY" in path.read_bytes()]
    assert with_keys == ["authority.json"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_root_key_that_others_can_read_is_refused(folder: Path, mode: int):
    open_authority(folder)
    (folder / "authority.json").chmod(mode)
    with pytest.raises(AuthorityError, match=r"SL4001: .*others may read it.*chmod 0600"):
        open_authority(folder)


def test_a_folder_that_others_can_enter_is_refused(folder: Path):
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    with pytest.raises(AuthorityError, match="chmod 0700"):
        open_authority(folder)


def test_a_link_instead_of_the_key_is_refused(folder: Path, tmp_path: Path):
    open_authority(folder)
    (folder / "authority.json").rename(tmp_path / "elsewhere")
    (folder / "authority.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuthorityError, match="cannot be read"):
        open_authority(folder)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path):
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(AuthorityError, match="cannot be used"):
        open_authority(tmp_path / "data" / "ca")


@pytest.mark.parametrize("content", ["", "{}", "[]", "{", '{"version": 2}', "null", "\x00"])
def test_a_damaged_file_is_refused_and_kept(folder: Path, content: str):
    """A damaged root is never silently replaced: every running peer would be locked out."""
    open_authority(folder)
    (folder / "authority.json").write_text(content)
    with pytest.raises(AuthorityError, match="damaged"):
        open_authority(folder)
    assert (folder / "authority.json").read_text() == content


def test_a_damaged_key_is_refused(folder: Path):
    open_authority(folder)
    state = json.loads((folder / "authority.json").read_text())
    state["key"] = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    (folder / "authority.json").write_text(json.dumps(state))
    with pytest.raises(AuthorityError, match="root key is damaged"):
        open_authority(folder)


def test_the_authority_of_another_application_is_refused(folder: Path):
    open_authority(folder)
    with pytest.raises(AuthorityError, match="made for application 'boutique'"):
        CertificateAuthority.load_or_create(folder, DOMAIN, "other")
    with pytest.raises(AuthorityError, match=r"trust domain 'boutique.local'"):
        CertificateAuthority.load_or_create(folder, "other.local", APP)


def test_a_reopened_authority_has_the_same_root(folder: Path):
    assert open_authority(folder).bundle_pem == open_authority(folder).bundle_pem


def test_openers_at_the_same_time_make_one_root(folder: Path):
    with ThreadPoolExecutor(8) as pool:
        bundles = {authority.bundle_pem for authority in pool.map(open_authority, [folder] * 8)}
    assert len(bundles) == 1


def test_a_write_cut_off_by_a_crash_leaves_the_old_root(folder: Path):
    bundle = open_authority(folder).bundle_pem
    (folder / "authority.new").write_bytes(b'{"version": 1, "trust_dom')
    authority = open_authority(folder)
    assert authority.bundle_pem == bundle
    authority.rotate_root()
    assert open_authority(folder).bundle_pem == authority.bundle_pem


def test_a_passphrase_seals_the_key(folder: Path):
    bundle = open_authority(folder, passphrase="correct horse").bundle_pem
    assert b"PRIVATE KEY" not in (folder / "authority.json").read_bytes()
    assert open_authority(folder, passphrase="correct horse").bundle_pem == bundle
    with pytest.raises(AuthorityError, match="does not open"):
        open_authority(folder, passphrase="wrong")
    with pytest.raises(AuthorityError, match="no passphrase is given"):
        open_authority(folder)


def test_a_passphrase_given_later_seals_the_key_it_finds(folder: Path):
    bundle = open_authority(folder).bundle_pem
    assert open_authority(folder, passphrase="now").bundle_pem == bundle
    assert b"PRIVATE KEY" not in (folder / "authority.json").read_bytes()


def test_a_rotated_root_is_trusted_beside_the_old_one_until_a_day_has_gone(folder: Path):
    clock = ManualClock()
    authority = open_authority(folder, clock=clock)
    before = x509.load_pem_x509_certificates(authority.bundle_pem)
    after = x509.load_pem_x509_certificates(authority.rotate_root())
    assert len(after) == 2
    assert after[1] == before[0]
    assert not authority.maintain()
    clock.advance(86400 + 361)
    assert authority.maintain()
    assert x509.load_pem_x509_certificates(authority.bundle_pem) == [after[0]]
    assert open_authority(folder, clock=clock).bundle_pem == authority.bundle_pem


def test_a_root_in_its_last_quarter_is_replaced(folder: Path):
    """Nobody has to remember: applications have died of a root that expired."""
    clock = ManualClock()
    old = open_authority(folder, clock=clock).bundle_pem
    clock.advance(timedelta(days=547).total_seconds())
    authority = open_authority(folder, clock=clock)
    assert authority.bundle_pem == old
    clock.advance(timedelta(days=2).total_seconds())
    assert authority.maintain()
    assert authority.bundle_pem.endswith(old)
    assert authority.bundle_pem != old


def test_rotation_is_due_at_about_half_of_the_life_and_spread():
    made = datetime(2026, 1, 1, tzinfo=UTC)
    ends = made + timedelta(hours=1)
    random = Random(7)
    moments = [next_rotation(made - BACKDATE, ends, random) for _ in range(1000)]
    assert min(moments) >= made + timedelta(minutes=24)
    assert max(moments) <= made + timedelta(minutes=36)
    assert max(moments) - min(moments) > timedelta(minutes=11)


def test_a_short_certificate_is_not_rotated_at_once():
    """Backdating must not count as life: a certificate of ten seconds is due after four, not six minutes ago."""
    made = datetime(2026, 1, 1, tzinfo=UTC)
    moment = next_rotation(made - BACKDATE, made + timedelta(seconds=10), Random(1))
    assert made + timedelta(seconds=4) <= moment <= made + timedelta(seconds=6)


def test_a_certificate_that_was_not_backdated_is_rotated_within_its_life():
    made = datetime(2026, 1, 1, tzinfo=UTC)
    moment = next_rotation(made, made + timedelta(seconds=60), Random(1))
    assert made < moment < made + timedelta(seconds=60)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_key_on_its_way_into_a_context_leaves_no_file(in_memory: bool, monkeypatch: pytest.MonkeyPatch):
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    with secret_file(b"key") as path:
        assert Path(path).read_bytes() == b"key"
        assert Path(path).stat().st_mode & 0o077 == 0 or in_memory
    assert not Path(path).exists()


def test_only_the_modules_own_certificate_can_be_installed(folder: Path):
    authority = open_authority(folder)
    identity = WorkloadIdentity(DOMAIN, APP)
    key, csr = new_key_and_csr()
    chain = authority.issue(csr, "payments")
    with pytest.raises(SvidError, match=r"not for 'spiffe://boutique.local/boutique/orders'"):
        identity.install("orders", key, chain)
    with pytest.raises(SvidError, match="key does not fit"):
        identity.install("payments", new_key_and_csr()[0], chain)
    with pytest.raises(SvidError, match="cannot be read"):
        identity.install("payments", key, b"")
    assert identity.modules == ()
    identity.install("payments", key, chain)
    assert identity.modules == ("payments",)


def test_a_broken_bundle_is_refused_and_changes_nothing(folder: Path):
    identity = WorkloadIdentity(DOMAIN, APP)
    identity.set_bundle(open_authority(folder).bundle_pem)
    with pytest.raises(SvidError, match="trust bundle"):
        identity.set_bundle(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with pytest.raises(SvidError, match="trust bundle"):
        identity.set_bundle(b"")


@given(st.text() | st.from_regex(r"spiffe://[a-z./@:?#%0-9-]{0,30}", fullmatch=True))
def test_whatever_parses_as_an_id_is_written_the_same(text: str):
    try:
        parsed = SpiffeId.parse(text)
    except NotSpiffeError:
        return
    assert str(parsed) == text


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://boutique.local/boutique",
        "spiffe://boutique.local/boutique/payments/x",
        "spiffe://boutique.local//payments",
        "spiffe://boutique.local/boutique/payments?x",
        "spiffe://boutique.local:443/boutique/payments",
        "spiffe://user@boutique.local/boutique/payments",
        "spiffe://boutique.local/boutique/%70ayments",
        "spiffe://boutique.local/boutique/..",
        "spiffe://BOUTIQUE.local/boutique/payments",
        "https://boutique.local/boutique/payments",
        "spiffe:///boutique/payments",
        "spiffe://boutique.local/boutique/payments\n",
        "",
    ],
)
def test_what_is_not_quite_an_id_is_refused(uri: str):
    with pytest.raises(NotSpiffeError):
        SpiffeId.parse(uri)
