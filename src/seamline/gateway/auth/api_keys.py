"""Keys of programs: ``slk_<id>_<secret>``. Only a hash of the secret is kept; 256 random bits need no slow one."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable

import msgspec

from seamline.gateway.auth.errors import ApiKeyError, Refused
from seamline.gateway.auth.records import Records
from seamline.gateway.auth.throttle import Throttle
from seamline.module.principal import User

PREFIX = "slk_"
_KEY = re.compile(r"slk_([a-z0-9]{16})_([a-f0-9]{64})")
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_UNKNOWN_MAX = 1000
_TOLD = "The API key is not valid."


class ApiKey(msgspec.Struct, frozen=True):
    """What is kept of a key. ``scopes`` None is no limit. Times are in seconds since the epoch; 0 is never."""

    id: str
    name: str
    digest: str
    user: str
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] | None = None
    tenant: str = ""
    created: int = 0
    expires: int = 0
    revoked: int = 0
    old_digest: str = ""
    """The secret before the last rotation, good until ``old_until``."""
    old_until: int = 0

    def to_user(self) -> User:
        return User(
            id=self.user,
            issuer="api-key",
            roles=frozenset(self.roles),
            tenant=self.tenant,
            name=self.name,
            authenticated_at=self.created,
            client=self.id,
            scopes=frozenset(self.scopes) if self.scopes is not None else None,
        )


_decode = msgspec.json.Decoder(ApiKey).decode


class ApiKeys:
    """Makes, changes and lists keys; for the command line."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def create(
        self,
        name: str,
        *,
        user: str = "",
        roles: Iterable[str] = (),
        scopes: Iterable[str] | None = None,
        tenant: str = "",
        valid_s: int,
    ) -> tuple[ApiKey, str]:
        """A new key, and its text, which is not kept."""
        identity = "".join(secrets.choice(_LETTERS) for _ in range(16))
        secret = secrets.token_hex(32)
        now = self._records.now()
        key = ApiKey(
            id=identity,
            name=name,
            digest=_digest(secret),
            user=user or f"key:{identity}",
            roles=tuple(roles),
            scopes=tuple(scopes) if scopes is not None else None,
            tenant=tenant,
            created=now,
            expires=now + valid_s if valid_s else 0,
        )
        await self._put(key)
        return key, f"{PREFIX}{identity}_{secret}"

    async def rotate(self, identity: str, *, overlap_s: int) -> tuple[ApiKey, str]:
        """A new secret for a key; the old one holds for ``overlap_s`` more. Raises ApiKeyError."""
        key = await self._find(identity)
        if key.revoked:
            raise ApiKeyError(f"the key {identity!r} is revoked", "Make a new one with `seamline keys create`.")
        secret, now = secrets.token_hex(32), self._records.now()
        valid = key.expires - key.created if key.expires else 0
        key = msgspec.structs.replace(
            key, digest=_digest(secret), old_digest=key.digest, old_until=now + overlap_s,
            created=now, expires=now + valid if valid else 0,
        )  # fmt: skip
        await self._put(key)
        return key, f"{PREFIX}{identity}_{secret}"

    async def revoke(self, identity: str) -> ApiKey:
        """Raises ApiKeyError."""
        key = msgspec.structs.replace(await self._find(identity), revoked=self._records.now())
        await self._put(key)
        return key

    async def every(self) -> list[ApiKey]:
        return sorted((_decode(state) for state in (await self._records.keys()).values()), key=lambda key: key.created)

    async def _find(self, identity: str) -> ApiKey:
        state = await self._records.key(identity)
        if state is None:
            raise ApiKeyError(f"there is no key {identity!r}", "`seamline keys list` shows them.")
        return _decode(state)

    async def _put(self, key: ApiKey) -> None:
        await self._records.put_key(key.id, msgspec.json.encode(key))


class KnownKeys:
    """Keys as a gateway knows them: asked for once, and again when they have changed."""

    def __init__(self, records: Records, throttle: Throttle) -> None:
        self._records = records
        self._throttle = throttle
        self._known: dict[str, tuple[ApiKey, User] | None] = {}
        self._unknown = 0
        self._changes = 0

    async def changed(self, identity: str) -> ApiKey | None:
        """The key as it is now."""
        self._changes += 1
        self._known.pop(identity, None)
        state = await self._records.key(identity)
        return _decode(state) if state is not None else None

    async def user(self, text: str, address: str) -> User:
        """Whose key it is. Raises Refused."""
        parts = _KEY.fullmatch(text)
        if parts is None:
            raise Refused("an API key is malformed", _TOLD)
        identity, secret = parts.groups()
        wait_s = self._throttle.wait_s(identity, address)
        if wait_s > 0:
            raise Refused(
                f"too many wrong secrets for the key {identity}", "Too many attempts. Try again later.",
                status=429, headers=[(b"retry-after", b"%d" % (int(wait_s) + 1))], principal=identity,
            )  # fmt: skip
        found = await self._find(identity)
        now = self._records.now()
        digest = _digest(secret)
        key = found[0] if found is not None else None
        good = key is not None and hmac.compare_digest(key.digest, digest)
        old = key is not None and key.old_until > now and hmac.compare_digest(key.old_digest, digest)
        if found is None or not (good or old):
            self._throttle.failed(identity, address)
            raise Refused("an API key is unknown or its secret wrong", _TOLD, principal=identity)
        self._throttle.succeeded(identity, address)
        key = found[0]
        if key.revoked or (key.expires and key.expires <= now):
            raise Refused(f"the API key is {'revoked' if key.revoked else 'expired'}", _TOLD, principal=identity)
        return found[1]

    async def _find(self, identity: str) -> tuple[ApiKey, User] | None:
        if identity in self._known:
            return self._known[identity]
        before = self._changes
        state = await self._records.key(identity)
        if state is None:
            self._unknown += 1
            if self._unknown > _UNKNOWN_MAX:  # whoever makes up ids shall not fill the memory
                self._unknown = 0
                self._known = {name: found for name, found in self._known.items() if found is not None}
            found = None
        else:
            key = _decode(state)
            found = (key, key.to_user())
        if before == self._changes:  # else it may have changed after it was read
            self._known[identity] = found
        return found


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
