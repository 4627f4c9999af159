"""JWTs of one issuer: its public keys, kept and renewed, and what a token must be to count.

The rules of RFC 8725: algorithms are pinned, only asymmetric ones; the key is one of the issuer's own, found by ``kid``
as a plain name in a table; a header that brings or points to a key is refused; issuer, audience, subject and expiry
are required; what a token is for is told by its type.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
from collections.abc import Collection, Mapping
from typing import Any, cast

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from seamline.gateway.auth.errors import ProviderError
from seamline.gateway.auth.outbound import Fetch, get_json
from seamline.kernel.clock import Clock, now_ms

_log = logging.getLogger("seamline.gateway")

TOKEN_CHARACTERS_MAX = 16_384
_UNKNOWN_KEY_S = 10.0
_RETRY_S = 20.0
_RETRY_SOON_S = 3.0
_KEYS_MAX = 100
_NUMBER_MAX = 1 << 53
_FORBIDDEN = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"})
_FAMILIES: Mapping[str, str] = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_CURVES: Mapping[str, str] = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_RSA_BITS_MIN = 2048
PublicKey = RSAKey | ECKey | OKPKey


class TokenRefused(Exception):
    """Why a token does not count, for the audit and not for who sent it."""


class Registry(JWSRegistry):
    """Longer heads than joserfc allows: a DPoP proof holds an RSA key in its own."""

    max_header_length = 4096
    max_payload_length = TOKEN_CHARACTERS_MAX


def parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a compact JWS, not verified. Raises TokenRefused."""
    pieces = token.split(".")
    if len(token) > TOKEN_CHARACTERS_MAX or len(pieces) != 3:
        raise TokenRefused("not a signed token")
    try:
        header, claims = (_json(piece) for piece in pieces[:2])
    except (ValueError, binascii.Error, RecursionError):
        raise TokenRefused("not a signed token") from None
    return header, claims


def _json(piece: str) -> dict[str, Any]:
    found = json.loads(_bytes(piece), object_pairs_hook=_once)
    if not isinstance(found, dict):
        raise ValueError  # noqa: TRY004  # what is sent is malformed, not what we call with
    return cast("dict[str, Any]", found)


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError  # two readers of a name that stands twice may read different things
    return found


def check_header(header: Mapping[str, Any], algorithms: Collection[str]) -> str:
    """The algorithm. Raises TokenRefused."""
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise TokenRefused(f"the algorithm {algorithm!r} is not one of those agreed on")
    if brought := sorted(_FORBIDDEN.intersection(header)):
        raise TokenRefused(f"its header brings {', '.join(brought)}")
    return algorithm


def fits(key: PublicKey, algorithm: str) -> bool:
    """Whether the algorithm is one for keys of this kind, and for this key."""
    if key.key_type != _FAMILIES.get(algorithm[:2]):
        return False
    said = cast("str | None", key.get("alg")) or algorithm
    curve = _CURVES.get(algorithm)
    return said == algorithm and (curve is None or key.get("crv") == curve)


def verified(token: str, key: PublicKey, algorithm: str) -> dict[str, Any]:
    """The claims, if the signature is the key's. Raises TokenRefused."""
    try:
        return jwt.decode(token, key, [algorithm], Registry(algorithms=[algorithm], strict_check_header=False)).claims
    except (JoseError, ValueError) as error:
        raise TokenRefused(f"its signature is not good ({type(error).__name__})") from None


def number(claims: Mapping[str, Any], name: str) -> float | None:
    """A time of the claims; None if absent. Raises TokenRefused."""
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_NUMBER_MAX < value < _NUMBER_MAX:
        raise TokenRefused(f"its {name} is not a time")
    return value


class KeySet:
    """An issuer's public keys.

    Fetched when first needed, again after ``fresh_s``, and once, no more often than every ten seconds, for a ``kid``
    that nobody knows yet. While the issuer cannot be reached, known keys serve on for ``stale_s``.
    """

    def __init__(
        self,
        issuer: str,
        url: str,
        fetch: Fetch,
        clock: Clock,
        *,
        fresh_s: int,
        stale_s: int,
        discovery: str = "",
    ) -> None:
        self._issuer = issuer
        self._discovery = discovery or discovery_url(issuer)
        self._url = url
        self._fetch = fetch
        self._clock = clock
        self._fresh_s = fresh_s
        self._stale_s = stale_s
        self._keys: dict[str, list[PublicKey]] = {}
        self._fetched = float("-inf")
        self._tried = float("-inf")
        self._looked = float("-inf")
        self._lock = asyncio.Lock()

    async def find(self, kid: str | None, algorithm: str) -> PublicKey:
        """The key of that id, or the only one that fits when the token names none.

        Raises TokenRefused, ProviderError.
        """
        age = self._clock.monotonic() - self._fetched
        found = self._known(kid, algorithm)
        if found is not None and age < self._fresh_s:
            return found
        if age >= self._fresh_s:
            serves = found is not None and age < self._fresh_s + self._stale_s
            if not (serves and self._lock.locked()):  # one waits for an issuer that hangs, and not all
                await self._renew(_RETRY_S if serves else _RETRY_SOON_S)
        else:
            await self._look_for_new()
        if self._clock.monotonic() - self._fetched > self._fresh_s + self._stale_s:
            self._keys.clear()
            raise ProviderError(f"the keys of {self._issuer} are not known", "Is the provider up?")
        found = self._known(kid, algorithm)
        if found is None:
            raise TokenRefused("no key of the issuer has its id and kind")
        return found

    def _known(self, kid: str | None, algorithm: str) -> PublicKey | None:
        if kid is None:
            every = [key for keys in self._keys.values() for key in keys if fits(key, algorithm)]
            return every[0] if len(every) == 1 else None
        return next((key for key in self._keys.get(kid, ()) if fits(key, algorithm)), None)

    async def _look_for_new(self) -> None:
        """For a key id that nobody knows. Anybody can make one up, so this is not done for each."""
        now = self._clock.monotonic()
        if now - self._looked >= _UNKNOWN_KEY_S:
            self._looked = now
            await self._renew(0.0)

    async def _renew(self, pause_s: float) -> None:
        async with self._lock:
            now = self._clock.monotonic()
            if now - self._tried < pause_s:
                return
            self._tried = now
            try:
                keys = await self._ask()
            except ProviderError as error:
                _log.warning("%s", error)  # a fact, no traceback: what is known serves on
                return
            self._keys, self._fetched = keys, now

    async def _ask(self) -> dict[str, list[PublicKey]]:
        if not self._url:
            found = await get_json(self._fetch, self._discovery)
            url = found.get("jwks_uri")
            if found.get("issuer") != self._issuer or not isinstance(url, str):
                raise ProviderError(f"{self._issuer} calls itself {found.get('issuer')!r}", "Write issuer as it does.")
            self._url = url
        document = await get_json(self._fetch, self._url)
        found = document.get("keys")
        if not isinstance(found, list):
            raise ProviderError(f"{self._url} has no keys", "Is this the address of a JWKS?")
        return public_keys(cast("list[Any]", found))


def public_keys(jwks: list[Any]) -> dict[str, list[PublicKey]]:
    """Those that may verify signatures; a symmetric key among them is nobody's."""
    keys: dict[str, list[PublicKey]] = {}
    for each in jwks[:_KEYS_MAX]:
        if isinstance(each, dict) and (key := public_key(cast("dict[str, Any]", each))) is not None:
            kid = cast("dict[str, Any]", each).get("kid")
            keys.setdefault(kid if isinstance(kid, str) else "", []).append(key)
    return keys


def public_key(jwk: dict[str, Any]) -> PublicKey | None:
    """A JWK as a key that verifies; None if it is of another kind, private, weak or malformed."""
    if jwk.get("kty") not in _FAMILIES.values() or "d" in jwk or jwk.get("use", "sig") != "sig":
        return None
    try:
        if jwk["kty"] == "RSA" and len(_bytes(jwk["n"]).lstrip(b"\0")) * 8 < _RSA_BITS_MIN:
            return None
        return cast("PublicKey", JWKRegistry.import_key(jwk))
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None


def discovery_url(issuer: str) -> str:
    return issuer.rstrip("/") + "/.well-known/openid-configuration"


class Issuer:
    """Verifies tokens of one issuer."""

    def __init__(self, name: str, keys: KeySet, clock: Clock, *, algorithms: Collection[str], skew_s: int) -> None:
        self.name = name
        self._keys = keys
        self._clock = clock
        self._algorithms = algorithms
        self._skew_s = skew_s

    async def verify(self, token: str, audience: Collection[str], types: Collection[str]) -> dict[str, Any]:
        """The claims of a token that is ours to take, now. Raises TokenRefused, ProviderError."""
        header, _ = parts_of(token)
        algorithm = check_header(header, self._algorithms)
        kind = header.get("typ", "")
        if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in types:
            raise TokenRefused(f"it is a token of type {kind!r}")
        kid = header.get("kid")
        if kid is not None and not isinstance(kid, str):
            raise TokenRefused("its kid is not a text")
        key = await self._keys.find(kid, algorithm)
        claims = verified(token, key, algorithm)
        self._check(claims, audience)
        return claims

    def _check(self, claims: Mapping[str, Any], audience: Collection[str]) -> None:
        if claims.get("iss") != self.name:
            raise TokenRefused(f"its issuer is {claims.get('iss')!r}")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not subject:
            raise TokenRefused("it speaks of nobody")
        given = claims.get("aud")
        meant = cast("list[Any]", given) if isinstance(given, list) else [given]
        if not any(isinstance(each, str) and each in audience for each in meant):
            raise TokenRefused(f"it is meant for {given!r}")
        now = now_ms(self._clock) / 1000
        expires = number(claims, "exp")
        if expires is None or expires <= now - self._skew_s:
            raise TokenRefused("it has no expiry" if expires is None else "it has expired")
        for name in ("nbf", "iat"):
            begins = number(claims, name)
            if begins is not None and begins > now + self._skew_s:
                raise TokenRefused("it is not valid yet")
