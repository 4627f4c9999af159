"""The built-in certificate authority: one ECDSA P-256 root per application, kept in ``<data>/identity``.

Everything secret is one file, ``authority.json`` (mode 0600 in a folder of mode 0700), written whole and renamed, so
that a crash leaves the old state or the new. ``bundle.pem`` beside it holds the trusted roots for other tools.
After a rotation the new root is also certified by the old one, and that certificate travels with each SVID: a peer
that has not heard of the new root yet still accepts it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from seamline.kernel.clock import Clock, SystemClock
from seamline.mesh.errors import AuthorityError, CertificateRequestError
from seamline.mesh.identity.keys import key_pem, new_key
from seamline.mesh.identity.rotation import BACKDATE
from seamline.mesh.identity.seal import seal, unseal
from seamline.mesh.identity.spiffe import SpiffeId

LIFETIME_S = 3600.0
LIFETIME_MAX = timedelta(days=1)
ROOT_LIFETIME = timedelta(days=730)
# An old root is trusted until the last certificate it may have signed has ended, on the slowest clock.
OVERLAP = LIFETIME_MAX + BACKDATE

_FILE = "authority.json"
_STATE_KEYS = {"version", "trust_domain", "app", "key", "root", "retired"}


@dataclass(frozen=True, slots=True)
class RetiredRoot:
    """A root that signs no more but is still trusted; ``cross`` certifies its successor's key."""

    root: x509.Certificate
    cross: x509.Certificate
    until: datetime


class CertificateAuthority:
    """Issues SVIDs for the modules of one application. Made by :meth:`load_or_create`."""

    def __init__(
        self,
        folder: Path,
        identity: tuple[str, str],
        key: ec.EllipticCurvePrivateKey,
        root: x509.Certificate,
        *,
        retired: tuple[RetiredRoot, ...] = (),
        passphrase: str | None = None,
        clock: Clock,
    ) -> None:
        self.folder = folder
        self.trust_domain, self.app = identity
        self._key = key
        self._root = root
        self._retired = retired
        self._passphrase = passphrase
        self._clock = clock

    @classmethod
    def load_or_create(
        cls,
        folder: Path,
        trust_domain: str,
        app: str,
        *,
        passphrase: str | None = None,
        clock: Clock | None = None,
    ) -> CertificateAuthority:
        """The authority in ``folder``, made if it is not there.

        With a passphrase the root key is sealed at rest (scrypt, AES-256-GCM); a key found unsealed is then sealed.
        Raises AuthorityError if anybody else can read the key, if it belongs to another application, or if the
        passphrase is missing or wrong.
        """
        SpiffeId(trust_domain, app, "module")  # refuses names that no SPIFFE ID can carry, before anything is written
        clock = clock or SystemClock()
        with _locked(folder):
            content = _read_private(folder / _FILE)
            if content is None:
                key = new_key()
                root = _self_signed(key, trust_domain, clock.now())
                authority = cls(folder, (trust_domain, app), key, root, passphrase=passphrase, clock=clock)
                authority._save()
                return authority
            state = _parse_state(content, trust_domain, app)
            key, sealed = unseal(state["key"], passphrase)
            retired = tuple(
                RetiredRoot(
                    x509.load_pem_x509_certificate(entry["root"].encode()),
                    x509.load_pem_x509_certificate(entry["cross"].encode()),
                    datetime.fromisoformat(entry["until"]),
                )
                for entry in state["retired"]
            )
            root = x509.load_pem_x509_certificate(state["root"].encode())
            authority = cls(folder, (trust_domain, app), key, root, retired=retired, passphrase=passphrase, clock=clock)
            if passphrase is not None and not sealed:
                authority._save()
        authority.maintain()
        return authority

    @property
    def bundle_pem(self) -> bytes:
        """The roots to trust: the one that signs, and old ones until their last certificate has ended."""
        return b"".join(_pem(root) for root in (self._root, *(old.root for old in reversed(self._retired))))

    def issue(self, csr_pem: bytes, module: str, lifetime_s: float = LIFETIME_S) -> bytes:
        """An SVID for ``module`` on the request's key, and what links it to older roots: PEM, leaf first.

        Names and extensions in the request are ignored: the caller has attested who asks.
        """
        request = _checked_request(csr_pem)
        if not 0 < lifetime_s <= LIFETIME_MAX.total_seconds():
            raise CertificateRequestError(
                f"a lifetime of {lifetime_s!r} s is not allowed",
                f"It must be above 0 and at most {LIFETIME_MAX.total_seconds():.0f} s.",
            )
        now = self._clock.now()
        spiffe = SpiffeId(self.trust_domain, self.app, module)
        leaf = _leaf(self._key, self._root, request.public_key(), spiffe, now, now + timedelta(seconds=lifetime_s))
        return b"".join(_pem(each) for each in (leaf, *(old.cross for old in reversed(self._retired))))

    def rotate_root(self) -> bytes:
        """Sign with a new root from now on and return the bundle of new and old roots.

        Safe at any moment: peers with the old bundle accept the new certificates. The old root leaves the bundle
        a day later (:meth:`maintain`), when nothing it signed is valid any more.
        """
        now = self._clock.now()
        key = new_key()
        root = _self_signed(key, self.trust_domain, now)
        cross = _certify(self._key, self._root, root, now)
        self._retired = (*self._retired, RetiredRoot(self._root, cross, now + OVERLAP))
        self._key, self._root = key, root
        self._save()
        return self.bundle_pem

    def maintain(self) -> bool:
        """Drop roots whose time is over, replace a root in its last quarter; True if the bundle has changed.

        Call it now and then (hourly is plenty) and hand the new bundle to every worker.
        """
        now = self._clock.now()
        kept = tuple(old for old in self._retired if old.until > now)
        changed = len(kept) != len(self._retired)
        self._retired = kept
        if now > self._root.not_valid_after_utc - ROOT_LIFETIME / 4:
            self.rotate_root()
            return True
        if changed:
            self._save()
        return changed

    def _save(self) -> None:
        state = {
            "version": 1,
            "trust_domain": self.trust_domain,
            "app": self.app,
            "key": seal(key_pem(self._key), self._passphrase),
            "root": _pem(self._root).decode(),
            "retired": [
                {
                    "root": _pem(old.root).decode(),
                    "cross": _pem(old.cross).decode(),
                    "until": old.until.isoformat(),
                }
                for old in self._retired
            ],
        }
        _write(self.folder / _FILE, json.dumps(state, indent=1).encode(), 0o600)
        _write(self.folder / "bundle.pem", self.bundle_pem, 0o644)


def _parse_state(content: bytes, trust_domain: str, app: str) -> dict[str, Any]:
    try:
        loaded: object = json.loads(content)
    except ValueError:
        loaded = None
    state = cast("dict[str, Any]", loaded) if isinstance(loaded, dict) else dict[str, Any]()
    if not state.keys() >= _STATE_KEYS or state["version"] != 1:
        raise AuthorityError(
            "the authority's file is damaged", "Restore it, or delete it to make a new root.", place=_FILE
        )
    made_for = (state["trust_domain"], state["app"])
    if made_for != (trust_domain, app):
        raise AuthorityError(
            f"the authority was made for application {made_for[1]!r} in trust domain {made_for[0]!r}, "
            f"not for {app!r} in {trust_domain!r}",
            "Use another data folder, or delete its `identity` folder to make a new root.",
        )
    return state


def _checked_request(csr_pem: bytes) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        genuine = request.is_signature_valid
        key = request.public_key()
    except (ValueError, InvalidSignature):
        raise CertificateRequestError("the certificate request cannot be read", "Send a PEM request.") from None
    if not genuine:
        raise CertificateRequestError(
            "the certificate request is not signed with its own key", "Sign it with the key it carries."
        )
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateRequestError("the certificate request's key is not ECDSA P-256", "Make a P-256 key.")
    return request


def _self_signed(key: ec.EllipticCurvePrivateKey, trust_domain: str, now: datetime) -> x509.Certificate:
    # The name differs from root to root, so that two roots of one bundle are never mistaken for each other.
    serial = x509.random_serial_number()
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Seamline root {serial % 16**12:012x}"),
        ]
    )
    builder = _builder(name, name, key.public_key(), serial, now - BACKDATE, now + ROOT_LIFETIME)
    return _as_authority(builder, trust_domain, key.public_key(), key.public_key()).sign(key, hashes.SHA256())


def _certify(
    key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate, root: x509.Certificate, now: datetime
) -> x509.Certificate:
    """The new root's key and name, signed by the old root."""
    public = cast("ec.EllipticCurvePublicKey", root.public_key())
    ends = min(issuer.not_valid_after_utc, now + OVERLAP)
    builder = _builder(root.subject, issuer.subject, public, x509.random_serial_number(), now - BACKDATE, ends)
    uris = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    domain = uris.get_values_for_type(x509.UniformResourceIdentifier)[0].removeprefix("spiffe://")
    return _as_authority(builder, domain, public, key.public_key()).sign(key, hashes.SHA256())


def _as_authority(
    builder: x509.CertificateBuilder,
    trust_domain: str,
    public: ec.EllipticCurvePublicKey,
    issuer: ec.EllipticCurvePublicKey,
) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
    )


def _leaf(
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate,
    public: Any,
    spiffe: SpiffeId,
    now: datetime,
    ends: datetime,
) -> x509.Certificate:
    """X.509-SVID (github.com/spiffe/spiffe, X509-SVID.md): one URI, no CA, digitalSignature only."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, spiffe.module)])
    ends = min(ends, issuer.not_valid_after_utc)
    names = [x509.UniformResourceIdentifier(str(spiffe)), x509.DNSName(spiffe.server_name)]
    return (
        _builder(name, issuer.subject, public, x509.random_serial_number(), now - BACKDATE, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    serial: int,
    begins: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(begins)
        .not_valid_after(ends)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Make and check the folder, and let one process at a time make the root."""
    import fcntl  # not on Windows, where nothing but the authority needs to be absent

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_if_shared(folder.stat(), folder, "0700")
        descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AuthorityError(
            f"the authority's folder cannot be used: {error.strerror}", "Give it to the user who runs Seamline.",
            place=str(folder),
        ) from error  # fmt: skip
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read_private(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AuthorityError(
            f"the root key cannot be read: {error.strerror}", "It must be a plain file.", place=str(path)
        ) from error
    with open(descriptor, "rb") as file:  # noqa: PTH123 - what is checked is what is read: the open file
        _refuse_if_shared(os.fstat(descriptor), path, "0600")
        return file.read()


def _refuse_if_shared(status: os.stat_result, path: Path, mode: str) -> None:
    if status.st_mode & 0o077:
        raise AuthorityError(
            f"others may read it (mode {status.st_mode & 0o777:04o})",
            f"Run `chmod {mode} {path}`; if somebody may have read the root key, delete the folder to make a new one.",
            place=str(path),
        )
    if status.st_uid not in {os.geteuid(), 0}:
        raise AuthorityError(
            f"it belongs to user {status.st_uid}, not to you", f"Run `chown {os.geteuid()} {path}`.", place=str(path)
        )


def _write(path: Path, content: bytes, mode: int) -> None:
    """All or nothing, on the disk before it counts."""
    temporary = path.with_suffix(".new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - opened with the mode it must have from the first byte
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError as error:
        raise AuthorityError(
            f"cannot be written: {error.strerror}", "Give the data folder room and permission.", place=str(path)
        ) from error
