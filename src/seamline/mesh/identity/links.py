"""The links of a delegation token: how one is written, signed and checked against the one before it.

A token is one or more links with ``~`` between them, each a compact JWS (RFC 7515) of ECDSA P-256 with the key of a
module's certificate. The first is the gateway's and says who the user is; each module that passes it on appends one
(delegation after RFC 8693) that says for whom, until when at the latest, and with which of the scopes. A link holds the
hash of all before it, so that none can be taken out, exchanged or put under another.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import re
from collections.abc import Callable
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from seamline.mesh.errors import (
    BrokenChainError,
    ExpiredTokenError,
    IdentityError,
    MalformedTokenError,
    UnknownKeyError,
    UntrustedSignerError,
)
from seamline.mesh.identity.keyring import ANY, PublicKeys, Signer, b64
from seamline.mesh.identity.spiffe import SpiffeId
from seamline.module.principal import User

LINK_S = 60
"""How long a link lives at most."""
DEFERRED_S = 90 * 86_400
"""How long what waits in an event or a saga may be acted on."""
LEEWAY_S = 5
"""By how much the clocks of two machines may differ."""
LINKS_MAX = 24
TOKEN_CHARACTERS_MAX = 24_576

EVENT, SAGA, WORK = "event:", "saga:", "work:"
"""What a deferred link waits in: an event, a saga, or a call that takes longer than its token lives."""
_EVENTS = "#events"
"""After a module's SPIFFE ID: whoever may read its events."""

_TYPE = "seamline+jwt"
_KID = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_ES256 = ec.ECDSA(hashes.SHA256())


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    alg: str
    kid: str
    typ: str


class UserClaims(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A :class:`~seamline.User` as it is written down."""

    sub: str
    iss: str = ""
    roles: list[str] = []
    tenant: str = ""
    name: str = ""
    email: str = ""
    sid: str = ""
    auth_time: int = 0
    acr: str = ""
    client: str = ""
    scopes: list[str] | None = None
    attributes: dict[str, str | int | bool] = {}

    @classmethod
    def of(cls, user: User) -> UserClaims:
        return cls(
            user.id, user.issuer, sorted(user.roles), user.tenant, user.name, user.email, user.session,
            user.authenticated_at, user.level, user.client, None if user.scopes is None else sorted(user.scopes),
            dict(user.attributes),
        )  # fmt: skip

    def user(self) -> User:
        return User(
            self.sub, self.iss, frozenset(self.roles), self.tenant, self.name, self.email, self.sid, self.auth_time,
            self.acr, self.client, None if self.scopes is None else frozenset(self.scopes), self.attributes,
        )  # fmt: skip


class _Claims(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Times are seconds since the epoch."""

    iss: str
    aud: str
    iat: int
    exp: int
    jti: str = ""
    user: UserClaims | None = None
    agent: str = ""
    prev: str = ""
    scopes: list[str] | None = None
    via: str = ""
    since: int = 0
    """When what waits began to."""


class Proof:
    """What a token says once it has been checked, or has been made here."""

    __slots__ = (
        "agent", "audience", "chain", "deferred", "expires_at", "issued_at", "jti", "links", "of_events", "signer",
        "text", "user", "via",
    )  # fmt: skip

    def __init__(
        self, text: str, jti: str, signer: str, audience: str, user: User | None, agent: str, chain: tuple[str, ...],
        issued_at: int, expires_at: int, *, links: int = 0, via: str = "", deferred: bool = False,
        of_events: bool = False,
    ) -> None:  # fmt: skip
        self.text = text
        self.jti = jti
        """Of the sign-in at the gateway that all links go back to."""
        self.signer = signer
        """The module that made the last link."""
        self.audience = audience
        """The module that it is for; with ``of_events`` whoever may read that module's events."""
        self.user = user
        self.agent = agent
        self.chain = chain
        self.issued_at = issued_at
        self.expires_at = expires_at
        self.links = links
        self.via = via
        self.deferred = deferred
        """Its last link is for what waits: nobody may make a call with it as it is."""
        self.of_events = of_events


class Names:
    """SPIFFE IDs of one application's modules, and back."""

    def __init__(self, trust_domain: str, app: str) -> None:
        self._prefix = f"spiffe://{trust_domain}/{app}/"

    def of(self, module: str) -> str:
        return self._prefix + module

    def module(self, name: str) -> str:
        """Raises UntrustedSignerError for a name of another application."""
        try:
            SpiffeId.parse(name)
        except IdentityError:
            name = ""
        if not name.startswith(self._prefix):
            raise UntrustedSignerError("a link of the token names a module of another application", "Sign in here.")
        return name.removeprefix(self._prefix)


def first_link(
    names: Names, signer: Signer, gateway: str, audience: str, user: User | None, agent: str, jti: str, now: int
) -> Proof:
    """The gateway's: who the user is."""
    claims = _Claims(
        names.of(gateway), names.of(audience), now, now + LINK_S, jti,
        UserClaims.of(user) if user is not None else None, agent,
    )  # fmt: skip
    text = _signed(signer, claims)
    return Proof(text, jti, gateway, audience, user, agent, (), now, now + LINK_S, links=1)


def next_link(
    names: Names, signer: Signer, before: Proof, module: str, audience: str, now: int, *, user: User | None = None,
    agent: str = "", via: str = "",
) -> Proof:  # fmt: skip
    """What ``module``, which ``before`` is for (or one that read the event), hands on to ``audience``."""
    deferred = bool(via)
    scopes = user.scopes if user is not None else None
    known = before.user.scopes if before.user is not None else None
    life = DEFERRED_S if deferred and not via.startswith(WORK) else LINK_S
    claims = _Claims(
        names.of(module),
        names.of(audience) + (_EVENTS if via.startswith(EVENT) else ""),
        now,
        now + life if deferred else min(now + life, before.expires_at),
        agent=agent if agent != before.agent else "",
        prev=_digest(before.text),
        scopes=sorted(scopes) if scopes is not None and scopes != known else None,
        via=via,
        since=min(now, before.expires_at) if deferred else 0,
    )
    if before.links >= LINKS_MAX:
        raise BrokenChainError(
            f"a call went through more than {LINKS_MAX} modules", "Find the circle that they call each other in."
        )
    return _follows(before, claims, f"{before.text}~{_signed(signer, claims)}", module, audience)


def check_first(names: Names, keys: PublicKeys, text: str, gateway: str, now: int) -> Proof:
    """Check the gateway's link. Raises DelegationError."""
    claims = _checked(names, keys, text, now)
    if names.module(claims.iss) != gateway:
        raise UntrustedSignerError("the token does not begin with the gateway", "Only the gateway signs users in.")
    if claims.prev or claims.via or claims.since or claims.scopes is not None or not claims.jti:
        raise BrokenChainError("the token begins in the middle", "Show it whole.")
    if not claims.iat < claims.exp <= claims.iat + LINK_S:
        raise BrokenChainError(f"the gateway's link lives longer than {LINK_S} s", "Sign in again.")
    user = claims.user.user() if claims.user is not None else None
    return Proof(
        text, claims.jti, gateway, names.module(claims.aud), user, claims.agent, (), claims.iat, claims.exp, links=1
    )


def check_next(
    names: Names, keys: PublicKeys, before: Proof, link: str, now: int, may_read: Callable[[str, str], bool]
) -> Proof:
    """Check a link against those before it. Raises DelegationError."""
    claims = _checked(names, keys, link, now)
    module = names.module(claims.iss)
    if claims.prev != _digest(before.text):
        raise BrokenChainError("a link of the token was taken out, or belongs to another token", "Show it whole.")
    if claims.user is not None or claims.jti:
        raise BrokenChainError("a link of the token claims to be another user", "Only the gateway signs users in.")
    if before.of_events:
        if module != before.audience and not may_read(module, before.audience):
            raise UntrustedSignerError(
                f"module {module!r} may not read the events of {before.audience!r}", "Only their readers act on them."
            )
    elif module != before.audience:
        raise UntrustedSignerError(
            f"module {module!r} hands on a token that was made for {before.audience!r}", "Sign in again."
        )
    named, mark, _ = claims.aud.partition(_EVENTS)
    audience = names.module(named)
    _check_times(claims, before)
    if claims.via:
        if audience != module or bool(mark) != claims.via.startswith(EVENT):
            raise BrokenChainError("a deferred link is for another than who made it", "Sign in again.")
    elif mark or claims.since:
        raise BrokenChainError("a link is for the readers of events and names no event", "Sign in again.")
    known = before.user.scopes if before.user is not None else None
    if claims.scopes is not None and known is not None and not known.issuperset(claims.scopes):
        raise BrokenChainError("a link of the token gives itself more scopes than it was given", "Sign in again.")
    if claims.agent and before.agent:
        raise BrokenChainError("a link of the token exchanges the agent", "An agent acts for a user, not for another.")
    return _follows(before, claims, f"{before.text}~{link}", module, audience)


def _check_times(claims: _Claims, before: Proof) -> None:
    if claims.iat < before.issued_at - LEEWAY_S or claims.exp <= claims.iat:
        raise BrokenChainError("a link of the token is older than the one before it", "Compare the machines' clocks.")
    if claims.via:
        in_time = before.issued_at - LEEWAY_S <= claims.since <= min(before.expires_at, claims.iat)
        longest = LINK_S if claims.via.startswith(WORK) else DEFERRED_S
        if not claims.via.startswith((EVENT, SAGA, WORK)) or not in_time or claims.exp > claims.iat + longest:
            raise BrokenChainError("a deferred link did not begin in time, or lives too long", "Sign in again.")
    elif claims.exp > min(before.expires_at, claims.iat + LINK_S):
        raise BrokenChainError("a link of the token lives longer than the one before it", "Sign in again.")


def _follows(before: Proof, claims: _Claims, text: str, module: str, audience: str) -> Proof:
    user = before.user
    if claims.scopes is not None and user is not None:
        user = User(
            user.id, user.issuer, user.roles, user.tenant, user.name, user.email, user.session, user.authenticated_at,
            user.level, user.client, frozenset(claims.scopes), user.attributes,
        )  # fmt: skip
    to_itself = bool(claims.via) and not claims.via.startswith(EVENT)
    return Proof(
        text, before.jti, module, audience, user, before.agent or claims.agent,
        before.chain if to_itself else (*before.chain, module), claims.iat, claims.exp, links=before.links + 1,
        via=before.via if not claims.via or claims.via.startswith(WORK) else claims.via,
        deferred=bool(claims.via), of_events=claims.via.startswith(EVENT),
    )  # fmt: skip


def _signed(signer: Signer, claims: _Claims) -> str:
    header = b64(msgspec.json.encode(_Header("ES256", signer.kid, _TYPE)))
    signed = f"{header}.{b64(msgspec.json.encode(claims))}"
    r, s = decode_dss_signature(signer.key.sign(signed.encode(), _ES256))
    return f"{signed}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _checked(names: Names, keys: PublicKeys, link: str, now: int) -> _Claims:
    """A link's claims, once its signature is good. What a header asks for is compared, never followed."""
    parts = link.split(".")
    if len(parts) != 3:
        raise _malformed("a link has no three parts")
    header = _decoded(parts[0], _Header)
    if header.alg != "ES256" or header.typ != _TYPE or not _KID.fullmatch(header.kid):
        raise _malformed(f"a link is of another kind ({header.alg[:20]!r}, {header.typ[:20]!r})")
    claims = _decoded(parts[1], _Claims)
    signature = _bytes(parts[2])
    if len(signature) != 64:
        raise _malformed("a signature has another length")
    verifier = keys.find(header.kid)
    if verifier is None:
        raise UnknownKeyError("nobody has told whose key signed a link of the token", "It is being asked for.")
    signer = names.module(claims.iss)
    if verifier.module not in {signer, ANY}:
        raise UntrustedSignerError(f"a link of module {signer!r} is signed with the key of {verifier.module!r}")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        verifier.key.verify(encode_dss_signature(r, s), f"{parts[0]}.{parts[1]}".encode(), _ES256)
    except InvalidSignature:
        raise UntrustedSignerError(f"the signature of module {signer!r} on a link is wrong", "Sign in again.") from None
    if claims.iat > now + LEEWAY_S:
        raise ExpiredTokenError("a link of the token is not valid yet", "Compare the machines' clocks.")
    if not verifier.begins <= claims.iat <= verifier.ends + LEEWAY_S:
        raise UntrustedSignerError(f"module {signer!r} signed with a key outside of its time", "Sign in again.")
    return claims


def _decoded(part: str, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(_bytes(part), type=kind)
    except msgspec.MsgspecError as error:
        raise _malformed(f"a link cannot be read: {error}") from None


def _bytes(part: str) -> bytes:
    data = b""
    if _BASE64URL.fullmatch(part):
        with contextlib.suppress(binascii.Error):
            data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if b64(data) != part:  # one spelling for the same bytes, so that a token has one form
        raise _malformed("a link is not in base64url")
    return data


def _digest(text: str) -> str:
    return b64(hashlib.sha256(text.encode()).digest())


def _malformed(fact: str) -> MalformedTokenError:
    return MalformedTokenError(f"the proof of the user is no delegation token: {fact}", "Sign in again.")


def cut(text: str) -> tuple[str, str]:
    """What comes before the last link (empty for the first), and the link. Raises MalformedTokenError."""
    if len(text) > TOKEN_CHARACTERS_MAX or text.count("~") >= LINKS_MAX + 1:
        raise _malformed("it is too long")
    before, _, link = text.rpartition("~")
    return before, link
