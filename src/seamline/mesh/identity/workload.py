"""The identities of one process: the SVIDs of the modules it hosts, and TLS contexts that follow their rotation."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Any, Protocol, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from seamline.mesh.errors import (
    ForeignApplicationError,
    ForeignRootError,
    ForeignTrustDomainError,
    NoPeerCertificateError,
    NoSvidError,
    NotSpiffeError,
    QuarantinedError,
    SvidError,
    UnexpectedModuleError,
)
from seamline.mesh.identity.handshake import client_object, server_object
from seamline.mesh.identity.keyring import PublicKeys, Signer, known_key
from seamline.mesh.identity.keys import secret_file
from seamline.mesh.identity.rotation import BACKDATE
from seamline.mesh.identity.spiffe import SpiffeId

FRAMES = "seamline/1"
HTTP1 = "http/1.1"

_DER = 2
"""``_ssl.ENCODING_DER``"""
_SETTLE_S = 2.0
"""How long a new key signs nothing yet where an old one can: until everybody has been told of it."""


class HasPeerCertificate(Protocol):
    """``ssl.SSLObject``, ``ssl.SSLSocket`` and what uvloop gives as ``ssl_object``."""

    def getpeercert(self, binary_form: bool = False, /) -> object: ...


@dataclass(slots=True)
class _Svid:
    pem: bytes
    not_before: datetime
    not_after: datetime
    signer: Signer
    next_signer: Signer | None = None
    signs_from: float = 0.0
    server: ssl.SSLContext | None = None
    clients: dict[tuple[str, ...], ssl.SSLContext] = field(default_factory=dict[tuple[str, ...], ssl.SSLContext])


class WorkloadIdentity:
    """Certificates, contexts and the check of peers for the modules hosted in one process.

    ``on_refused`` hears, in words, why a handshake on the server side failed; set it to write the audit line.
    """

    def __init__(self, trust_domain: str, app: str, *, on_refused: Callable[[str], None] | None = None) -> None:
        self.trust_domain = trust_domain
        self.app = app
        self.on_refused = on_refused
        self._svids: dict[str, _Svid] = {}
        self._roots: dict[bytes, x509.Certificate] = {}
        self._foreign: dict[str, dict[bytes, x509.Certificate]] = {}
        """Roots of other trust domains, by these."""
        self._front: ssl.SSLContext | None = None
        self.refuses: Callable[[str], str | None] | None = None
        """Why a module's certificate is refused before its time; None when it is good."""
        self.keys = PublicKeys()
        """Everybody's, as the supervisor tells of them."""
        self.on_change: list[Callable[[], None]] = []
        """Called after certificates or roots were replaced."""

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules with a certificate."""
        return tuple(self._svids)

    def spiffe_id(self, module: str) -> SpiffeId:
        return SpiffeId(self.trust_domain, self.app, module)

    def server_name(self, module: str) -> str:
        """The TLS server name that selects the module: ``<module>.<app>.seamline``."""
        return f"{module}.{self.app}.seamline"

    def validity(self, module: str) -> tuple[datetime, datetime]:
        """(not before, not after) of the module's certificate, for ``next_rotation``."""
        svid = self._svid(module)
        return svid.not_before, svid.not_after

    def install(self, module: str, key_pem: bytes, chain_pem: bytes) -> None:
        """Use a certificate for the module from now on; open connections live on.

        Raises SvidError if the chain is not the module's own or the key does not fit, and changes nothing then.
        """
        leaf, key = self._checked_leaf(module, key_pem, chain_pem)
        pem = key_pem.rstrip() + b"\n" + chain_pem
        public = known_key(leaf, module)
        self.keys.add([public])
        signer = Signer(public.kid, key)
        known = self._svids.get(module)
        if known is None:
            self._svids[module] = _Svid(pem, leaf.not_valid_before_utc, leaf.not_valid_after_utc, signer)
            self._changed()
            return
        known.signer, known.next_signer = self.signer(module), signer
        slept = leaf.not_valid_before_utc + BACKDATE > known.not_after
        known.signs_from = 0.0 if slept else monotonic() + _SETTLE_S
        known.pem, known.not_before, known.not_after = pem, leaf.not_valid_before_utc, leaf.not_valid_after_utc
        for context in self._contexts(known):
            _load(context, pem)
        self._changed()

    def signer(self, module: str) -> Signer:
        """The key with which the module proves on whose behalf it acts. Raises NoSvidError."""
        svid = self._svid(module)
        if svid.next_signer is not None and monotonic() >= svid.signs_from:
            svid.signer, svid.next_signer = svid.next_signer, None
        return svid.signer

    def remove(self, module: str) -> None:
        """Forget a module that this process hosts no more."""
        self._svids.pop(module, None)

    def pem(self, module: str) -> bytes:
        """The module's key and its certificate chain, for what makes connections in its place. Raises NoSvidError."""
        return self._svid(module).pem

    @property
    def bundle_pem(self) -> bytes:
        """The roots that are trusted."""
        return b"".join(root.public_bytes(serialization.Encoding.PEM) for root in self._roots.values())

    def _changed(self) -> None:
        for heard in self.on_change:
            heard()

    def set_bundle(self, pem: bytes) -> None:
        """Trust these roots and no others for new connections.

        Roots are added to live contexts in place. When one is dropped, contexts are made anew, because OpenSSL
        cannot forget a root: ask :meth:`client_context` for each connection. The server context stays the same.
        """
        roots = _read_roots(pem)
        added = [root for fingerprint, root in roots.items() if fingerprint not in self._roots]
        dropped = self._roots.keys() - roots.keys()
        self._roots = roots
        for svid in self._svids.values():
            if dropped:
                svid.server = None
                svid.clients.clear()
            else:
                for context in self._contexts(svid):
                    _trust(context, added)
        self._changed()

    def set_foreign(self, bundles: Mapping[str, bytes]) -> None:
        """Trust the roots (PEM) of other trust domains, each for certificates of its own domain and no other."""
        found = {domain: _read_roots(pem) for domain, pem in bundles.items() if domain != self.trust_domain}
        if found == self._foreign:
            return
        self._foreign = found
        for svid in self._svids.values():
            svid.server = None
            svid.clients.clear()

    def server_context(self) -> ssl.SSLContext:
        """One context for the listening socket: the server name selects the module; TLS 1.3, client certificate.

        Without a server name, the first module answers. A name that is not hosted here is refused.
        """
        if self._front is None:
            self._front = self._new_server_context()
            self._front.sni_callback = self._select
        return self._front

    def client_context(
        self, module: str, alpn: str | Sequence[str] = FRAMES, *, foreign: SpiffeId | None = None
    ) -> ssl.SSLContext:
        """The context with which ``module`` calls others; connect with ``server_hostname=server_name(callee)``.

        A server that is not the module of that name fails the handshake. ``foreign`` is a module of another trust
        domain, which is called under its own server name.
        """
        svid = self._svid(module)
        protocols = (alpn,) if isinstance(alpn, str) else tuple(alpn)
        kind = protocols if foreign is None else (*protocols, str(foreign))
        context = svid.clients.get(kind)
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # The SPIFFE ID is checked instead, in the handshake: server names of foreign peers prove nothing.
            context.check_hostname = False
            context.sslobject_class = client_object(partial(self._check_server, foreign=foreign))
            self._prepare(context, svid.pem, protocols)
            svid.clients[kind] = context
        return context

    def authenticate(
        self, ssl_object: HasPeerCertificate | None, expect: str | None = None, *, foreign: bool = True
    ) -> str:
        """The peer's module name, proven by its certificate; ``<trust domain>/<app>/<module>`` of a ``foreign`` one.

        Raises a subclass of IdentityError for each way in which the peer is not a module of this application, or,
        if ``expect`` names another module, UnexpectedModuleError.
        """
        certificate = ssl_object.getpeercert() if ssl_object is not None else None
        if not certificate:
            raise NoPeerCertificateError(
                "the peer showed no certificate" if ssl_object is not None else "the connection is not encrypted",
                "Connect with mutual TLS and the module's certificate.",
            )
        names = cast("dict[str, tuple[tuple[str, str], ...]]", certificate).get("subjectAltName", ())
        uris = [value for kind, value in names if kind == "URI"]
        if len(uris) != 1:
            raise NotSpiffeError(
                f"the peer's certificate holds {len(uris)} URIs instead of one SPIFFE ID",
                "Use a certificate made by the application's authority.",
            )
        peer = SpiffeId.parse(uris[0])
        if self._foreign:
            self._check_root(ssl_object, peer)
        if foreign and peer.trust_domain in self._foreign:
            if expect is not None and _foreign_name(peer) != expect:
                raise UnexpectedModuleError(f"the peer is {str(peer)!r}, but {expect!r} was asked for", "Ask that one.")
            return _foreign_name(peer)
        if peer.trust_domain != self.trust_domain:
            raise ForeignTrustDomainError(
                f"the peer '{peer}' belongs to trust domain {peer.trust_domain!r}, not to {self.trust_domain!r}",
                "Only certificates of the own trust domain are accepted.",
            )
        if peer.app != self.app:
            raise ForeignApplicationError(
                f"the peer '{peer}' belongs to application {peer.app!r}, not to {self.app!r}",
                "Only certificates of the own application are accepted.",
            )
        if expect is not None and peer.module != expect:
            raise UnexpectedModuleError(
                f"the peer is module {peer.module!r}, but {expect!r} was asked for",
                "The address may have been given to another workload; endpoints are refreshed and the call retried.",
            )
        reason = self.refuses(peer.module) if self.refuses is not None else None
        if reason is not None:
            raise QuarantinedError(
                f"module {peer.module!r} is quarantined: {reason}", "`seamline identity release` takes it back."
            )
        return peer.module

    def _check_root(self, ssl_object: HasPeerCertificate | None, peer: SpiffeId) -> None:
        """Each trust domain's certificates come from its own authority: OpenSSL takes all roots as equal."""
        own = self._roots if peer.trust_domain == self.trust_domain else self._foreign.get(peer.trust_domain, {})
        root = _root_of(ssl_object)
        if root is None or x509.load_der_x509_certificate(root).fingerprint(hashes.SHA256()) not in own:
            raise ForeignRootError(
                f"the peer's certificate names '{peer}' and comes from another trust domain's authority",
                "Somebody there makes certificates in our name: ask them, or end the federation.",
            )

    def _svid(self, module: str) -> _Svid:
        svid = self._svids.get(module)
        if svid is None:
            raise NoSvidError(f"module {module!r} has no certificate here", "The supervisor issues one at the start.")
        return svid

    def _checked_leaf(
        self, module: str, key_pem: bytes, chain_pem: bytes
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        try:
            leaf = x509.load_pem_x509_certificates(chain_pem)[0]
            key = serialization.load_pem_private_key(key_pem, None)
            uris = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
                x509.UniformResourceIdentifier
            )
        except (ValueError, TypeError, x509.ExtensionNotFound) as error:
            raise SvidError(f"the certificate for {module!r} cannot be read: {error}", "Ask for a new one.") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != leaf.public_key():
            raise SvidError(f"the key does not fit the certificate for {module!r}", "Send the key of the request.")
        own = str(self.spiffe_id(module))
        if uris != [own]:
            raise SvidError(f"the certificate is for {uris}, not for {own!r}", "Ask for the module's own.")
        return leaf, key

    def _contexts(self, svid: _Svid) -> list[ssl.SSLContext]:
        return [*([svid.server] if svid.server else []), *svid.clients.values()]

    def _new_server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols([FRAMES, HTTP1])
        # A resumed session is not verified again, so it would outlive the certificate and the root it began with.
        context.num_tickets = 0
        context.sslobject_class = server_object(self._refused)
        return context

    def _prepare(self, context: ssl.SSLContext, pem: bytes, protocols: Sequence[str]) -> None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(list(protocols))
        _trust(context, [*self._roots.values(), *(root for each in self._foreign.values() for root in each.values())])
        _load(context, pem)

    def _select(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
        """Called within the handshake: choose the context, and with it certificate and roots, by server name."""
        if name is None:
            svid = next(iter(self._svids.values()), None)
        else:
            module, _, rest = name.partition(".")
            svid = self._svids.get(module) if rest == f"{self.app}.seamline" else None
        if svid is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        if svid.server is None:
            svid.server = self._new_server_context()
            self._prepare(svid.server, svid.pem, (FRAMES, HTTP1))
        connection.context = svid.server
        return None

    def _check_server(self, connection: ssl.SSLObject, *, foreign: SpiffeId | None = None) -> None:
        if foreign is not None:
            self.authenticate(cast("HasPeerCertificate", connection), _foreign_name(foreign))
            return
        asked = connection.server_hostname
        suffix = f".{self.app}.seamline"
        expect = asked.removesuffix(suffix) if asked and asked.endswith(suffix) else None
        self.authenticate(cast("HasPeerCertificate", connection), expect, foreign=False)

    def _refused(self, reason: str) -> None:
        if self.on_refused is not None:
            self.on_refused(reason)


def _read_roots(pem: bytes) -> dict[bytes, x509.Certificate]:
    try:
        return {each.fingerprint(hashes.SHA256()): each for each in x509.load_pem_x509_certificates(pem)}
    except ValueError as error:
        raise SvidError(f"the trust bundle cannot be read: {error}", "Send PEM certificates.") from None


def _foreign_name(peer: SpiffeId) -> str:
    """What policy calls a module of another trust domain."""
    return f"{peer.trust_domain}/{peer.app}/{peer.module}"


def _root_of(ssl_object: HasPeerCertificate | None) -> bytes | None:
    """The root (DER) with which the handshake has verified the peer; None where that is not known."""
    # Public from Python 3.13 on; before, the object below has had it under the same name since 3.10.
    if sys.version_info >= (3, 13):
        chain: Sequence[Any] = cast("Any", ssl_object).get_verified_chain() or ()
        return bytes(chain[-1]) if chain else None
    verified = getattr(getattr(ssl_object, "_sslobj", None), "get_verified_chain", None)
    found: Sequence[Any] = verified() or () if verified is not None else ()
    return cast("bytes", found[-1].public_bytes(_DER)) if found else None


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    with secret_file(pem) as path:
        context.load_cert_chain(path)


def _trust(context: ssl.SSLContext, roots: Sequence[x509.Certificate]) -> None:
    if roots:
        context.load_verify_locations(cadata=b"".join(root.public_bytes(serialization.Encoding.DER) for root in roots))
