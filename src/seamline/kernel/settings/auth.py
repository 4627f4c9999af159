"""``[auth]``: who the gateway lets people and programs be."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from seamline.kernel.settings.errors import BadValueError, SettingsError, WrongTypeError
from seamline.kernel.settings.tables import TableReader, choices

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Signatures whose keys may be public. ``none`` and the HMACs are not among them, and cannot be asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSettings:
    """One entry of ``[auth] issuers``: somebody else whose access tokens are good for APIs."""

    issuer: str
    audience: tuple[str, ...]
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    jwks_url: str = ""
    """Empty asks the issuer's discovery document."""
    roles_claim: str = "roles"
    tenant_claim: str = "tenant"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateClientSettings:
    """One entry of ``[auth] certificates``: what the holder of a client certificate may be."""

    identity: str
    """The certificate's first URI, else DNS name, else e-mail address among its subject alternative names."""
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    tenant: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalSettings:
    """One entry of ``[[auth.signals]]``: a transmitter of security events that the gateway listens to."""

    issuer: str
    audience: tuple[str, ...]
    """Who its events are meant for: us."""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    jwks_url: str = ""
    """Empty asks the issuer's ``/.well-known/ssf-configuration``."""
    about: tuple[str, ...] = ()
    """Issuers of whose users it may speak, beside its own."""
    push_token_sha256: str = ""
    """Hash of the bearer token with which it pushes to ``/.seamline/signals/events``."""
    poll_url: str = ""
    """Where it is polled."""
    poll_token_file: str = ""
    """File with the bearer token for that, below the application's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """``[auth]``.

    Secrets belong in the environment: ``SEAMLINE_AUTH_CLIENT_SECRET`` and ``SEAMLINE_AUTH_SESSION_SECRET``.
    """

    issuer: str = ""
    """Of the OpenID Connect provider that people sign in with."""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    audience: tuple[str, ...] = ()
    """What access tokens of ``issuer`` must be meant for; empty is ``client_id``."""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    roles_claim: str = "roles"
    tenant_claim: str = "tenant"
    public_url: str = ""
    """Scheme and host that browsers see, where a proxy stands before the gateway; empty is what it listens on."""
    development: str = ""
    """A file of users: an identity provider inside the gateway, for development."""
    development_anywhere: bool = False
    """Serve it on an address that others can reach."""
    api_keys: bool = False
    session_idle_s: int = 3600
    session_max_s: int = 43_200
    session_secret: str = field(default="", repr=False)
    """Seals the session cookies where gateways do not share a data directory; two with a space between, while
    one is replaced by the other."""
    recheck_s: int = 300
    """How long the provider's word on a signed-in user is believed before it is asked again."""
    clock_skew_s: int = 30
    jwks_s: int = 600
    jwks_stale_s: int = 86_400
    """How long known keys serve while the provider cannot be reached."""
    client_ca: str = ""
    """PEM file: certificates of clients on the public port are asked for, and must come from here."""
    dpop: Literal["accept", "required"] = "accept"
    """``required``: a bearer token that is bound to no key or certificate is refused."""
    issuers: tuple[IssuerSettings, ...] = ()
    certificates: tuple[CertificateClientSettings, ...] = ()
    signals: tuple[SignalSettings, ...] = ()
    transmit_signals: bool = False
    """Tell others by Shared Signals; who has an API key with the scope ``signals`` may have a stream."""

    @property
    def enabled(self) -> bool:
        """Whether the gateway looks at who is asking at all."""
        tells = self.signals or self.transmit_signals
        return bool(self.interactive or self.api_keys or self.issuers or self.client_ca or tells)

    @property
    def interactive(self) -> bool:
        """Whether people can sign in."""
        return bool(self.issuer or self.development)


def read_auth(reader: TableReader, table: dict[str, Any], listen: tuple[str, int], *, tls: bool) -> AuthSettings:
    """``[auth]``, checked. Raises a SettingsError."""
    table = dict(table)
    issuers = _entries(reader, table, "issuers", IssuerSettings)
    certificates = _entries(reader, table, "certificates", CertificateClientSettings)
    signals = _entries(reader, table, "signals", SignalSettings)
    plain = reader.section(AuthSettings, "auth", table, {"issuers", "certificates", "signals"})
    auth = replace(plain, issuers=tuple(issuers), certificates=tuple(certificates), signals=tuple(signals))

    def refused(fact: str, remedy: str, key: str, section: str = "auth") -> SettingsError:
        return BadValueError(fact, remedy, place=reader.place(section, key))

    if auth.issuer and auth.development:
        raise refused("both issuer and development are set", "People sign in with one of them.", "development")
    if auth.issuer and not auth.client_id:
        raise refused("issuer is set without client_id", "Add the client_id that the provider gave you.", "issuer")
    for source in auth.signals:
        if not (source.push_token_sha256 or (source.poll_url and source.poll_token_file)):
            told = "Give push_token_sha256, or poll_url and poll_token_file."
            raise refused(f"{source.issuer!r} can neither push nor be polled", told, "issuer", "auth.signals")
        if source.push_token_sha256 and not _SHA256.fullmatch(source.push_token_sha256):
            told = "Write 64 hexadecimal digits: printf %s TOKEN | sha256sum."
            raise refused("push_token_sha256 is no SHA-256", told, "push_token_sha256", "auth.signals")
        if source.poll_url and not _secure(source.poll_url):
            raise refused(f"poll_url is {source.poll_url!r}", "Write https://....", "poll_url", "auth.signals")
    for issuer in [auth, *auth.issuers, *auth.signals]:
        section = "auth.signals" if isinstance(issuer, SignalSettings) else "auth.issuers"
        section = "auth" if issuer is auth else section
        if issuer.issuer and not _secure(issuer.issuer):
            raise refused(
                f"issuer is {issuer.issuer!r}", "Write https://...; http is for this machine.", "issuer", section
            )
        for name in issuer.algorithms:
            if name not in ALGORITHMS:
                raise refused(
                    f"{name!r} is not an algorithm to be used here", choices(name, ALGORITHMS), "algorithms", section
                )
        if issuer is not auth and not issuer.audience:
            raise refused("audience is empty", "Name what its tokens must be meant for.", "audience", section)
    if auth.public_url and (not _secure(auth.public_url) or urlsplit(auth.public_url).path not in ("", "/")):
        raise refused(f"public_url is {auth.public_url!r}", "Write https://host, without a path.", "public_url")
    reachable = not loopback(listen[0])
    if auth.development and reachable and not auth.development_anywhere:
        raise refused(
            f"the development identity provider would be served on {listen[0]!r}, where others can reach it",
            "Name a real provider by issuer and client_id, or say development_anywhere = true.",
            "development",
        )
    if auth.interactive and reachable and not auth.public_url:
        raise refused(
            "public_url is empty, and the gateway listens on more than this machine",
            "Write the address that browsers see: a host that a request claims is not to be believed.",
            "public_url",
        )
    if auth.client_ca and not tls:
        raise refused(
            "client_ca is set, and the gateway does not speak TLS",
            "Set tls_certificate and tls_key under [gateway].",
            "client_ca",
        )
    if auth.clock_skew_s > 120:
        raise refused(f"clock_skew_s is {auth.clock_skew_s!r}", "At most 120: set the clocks instead.", "clock_skew_s")
    return auth


def _entries(reader: TableReader, table: dict[str, Any], key: str, kind: Callable[..., Any]) -> list[Any]:
    found = table.pop(key, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in cast("list[Any]", found)):
        raise WrongTypeError(f"{key} is {found!r}", f"Write [[auth.{key}]] tables.", place=reader.place("auth", key))
    return [
        kind(**reader.values(cast("type", kind), f"auth.{key}", each, overrides=False))
        for each in cast("list[dict[str, Any]]", found)
    ]


def loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _secure(url: str) -> bool:
    parts = urlsplit(url)
    if not parts.hostname or parts.username or parts.query or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and loopback(parts.hostname))
