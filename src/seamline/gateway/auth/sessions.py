"""The session of a signed-in browser: a sealed cookie, opened once and then known by its bytes.

The cookie holds who it is and until when; what can renew it (the provider's refresh token) stays with the gateway. A
new sign-in makes a new id, so nobody can plant one. That a session was ended, every gateway hears within moments.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping

import msgspec

from seamline.gateway.auth.cookies import session_cookie
from seamline.gateway.auth.sealing import Sealer
from seamline.kernel.wire.http1 import Header
from seamline.module.principal import User

_PURPOSE = b"session"
_CACHED_MAX = 10_000
_COOKIE_CHARACTERS_MAX = 3800


class Session(msgspec.Struct, frozen=True, array_like=True):
    """Times are in seconds since the epoch."""

    id: str
    subject: str
    issuer: str
    roles: tuple[str, ...]
    tenant: str
    name: str
    email: str
    authenticated_at: int
    level: str
    attributes: Mapping[str, str | int | bool]
    created: int
    seen: int
    """When its cookie was written."""
    checked: int
    """When the provider last vouched for it."""
    renewable: bool
    """The provider can be asked again."""


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What the gateway keeps of a session and no browser sees."""

    session: Session
    refresh_token: str
    id_token: str


class Opened:
    """A session and its user, made once for all requests that bring the same cookie."""

    __slots__ = ("session", "user")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.user = User(
            id=session.subject,
            issuer=session.issuer,
            roles=frozenset(session.roles),
            tenant=session.tenant,
            name=session.name,
            email=session.email,
            session=session.id,
            authenticated_at=session.authenticated_at,
            level=session.level,
            attributes=session.attributes,
        )


def session_of(user: User, *, now: int, renewable: bool, old: Session | None = None) -> Session:
    """A new session for a user, or ``old`` with what is now known of its user."""
    return Session(
        id=old.id if old is not None else secrets.token_urlsafe(24),
        subject=user.id,
        issuer=user.issuer,
        roles=tuple(sorted(user.roles)),
        tenant=user.tenant,
        name=user.name,
        email=user.email,
        # A renewal is no sign-in, whenever its tokens were issued.
        authenticated_at=old.authenticated_at if old is not None else user.authenticated_at,
        level=user.level,
        attributes=user.attributes,
        created=old.created if old is not None else now,
        seen=now,
        checked=now,
        renewable=renewable,
    )


class SessionCookies:
    """Writes and reads the cookie."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Session).decode
        self._kept = msgspec.msgpack.Decoder(Kept).decode
        self._cache: OrderedDict[bytes, Opened] = OrderedDict()

    def open(self, value: bytes) -> Opened | None:
        """The session of a cookie's value; None if it is not ours."""
        found = self._cache.get(value)
        if found is not None:
            return found
        if len(value) > _COOKIE_CHARACTERS_MAX:
            return None
        plain = self._sealer.open(_PURPOSE, value.decode("latin-1"))
        if plain is None:
            return None
        try:
            found = Opened(self._decode(plain))
        except msgspec.MsgspecError:
            return None  # of another version
        self._cache[value] = found
        if len(self._cache) > _CACHED_MAX:
            self._cache.popitem(last=False)
        return found

    def write(self, session: Session, max_age_s: int) -> Header:
        """The header that sets the cookie. Claims that do not fit are left out, least important first."""
        value = self._sealer.seal(_PURPOSE, self._encode(session))
        if len(value) > _COOKIE_CHARACTERS_MAX:
            value = self._sealer.seal(_PURPOSE, self._encode(msgspec.structs.replace(session, attributes={})))
        if len(value) > _COOKIE_CHARACTERS_MAX:
            # Roles decide; a user with too many for a cookie is let in with none rather than with some.
            fewer = msgspec.structs.replace(session, attributes={}, roles=())
            value = self._sealer.seal(_PURPOSE, self._encode(fewer))
        return session_cookie(value, max_age_s)

    def keep(self, kept: Kept) -> bytes:
        return self._sealer.seal(b"kept session", self._encode(kept)).encode()

    def kept(self, state: bytes) -> Kept | None:
        plain = self._sealer.open(b"kept session", state.decode("latin-1"))
        return self._kept(plain) if plain is not None else None

    def csrf_token(self, session: str) -> str:
        """Proves that an answer of ours was read; for clients that send neither Origin nor Sec-Fetch-Site."""
        return self._tokens(session)[0]

    def is_csrf_token(self, session: str, given: bytes) -> bool:
        return any(hmac.compare_digest(token.encode(), given) for token in self._tokens(session))

    def _tokens(self, session: str) -> list[str]:
        keys = self._sealer.derived(b"csrf")
        return [hmac.new(key, session.encode(), hashlib.sha256).hexdigest() for key in keys]
