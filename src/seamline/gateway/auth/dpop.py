"""DPoP (RFC 9449): the sender of a token proves for each request that it holds the key the token is bound to."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import urlsplit

from seamline.gateway.auth.sealing import Sealer
from seamline.gateway.auth.tokens import TokenRefused, check_header, fits, number, parts_of, public_key, verified
from seamline.kernel.clock import Clock, now_ms

ALGORITHMS = ("ES256", "ES384", "PS256", "RS256", "EdDSA", "Ed25519")
_AGE_S = 60
_NONCE_S = 300
_SEEN_MAX = 100_000
_ID_CHARACTERS_MAX = 256


class NonceNeeded(TokenRefused):
    """The proof must name a nonce of ours."""


class DpopProofs:
    """Checks proofs. ``use`` tells whether a name is used for the first time among all gateways."""

    def __init__(self, clock: Clock, sealer: Sealer, skew_s: int, use: Callable[[str, int], Awaitable[bool]]) -> None:
        self._clock = clock
        self._sealer = sealer
        self._skew_s = skew_s
        self._use = use
        self._seen: OrderedDict[str, float] = OrderedDict()

    def nonce(self) -> str:
        """What the next proofs are to name."""
        return self._nonces()[0]

    def _nonces(self) -> list[str]:
        window = now_ms(self._clock) // 1000 // _NONCE_S
        return [
            base64.urlsafe_b64encode(hmac.digest(key, b"%d" % each, "sha256")[:18]).decode()
            for key in self._sealer.derived(b"dpop nonce")
            for each in (window, window - 1)
        ]

    async def check(self, proof: str, method: str, url: str, token: str) -> str:
        """The thumbprint of the key that a proof for this request and token is signed with. Raises TokenRefused."""
        header, _ = parts_of(proof)
        jwk = header.get("jwk")
        if header.get("typ") != "dpop+jwt" or not isinstance(jwk, dict):
            raise TokenRefused("it is not a DPoP proof")
        algorithm = check_header({name: value for name, value in header.items() if name != "jwk"}, ALGORITHMS)
        key = public_key(cast("dict[str, Any]", jwk))
        if key is None or not fits(key, algorithm):
            raise TokenRefused("its key is not a public one of the right kind")
        claims = verified(proof, key, algorithm)
        if claims.get("htm") != method or not _same(claims.get("htu"), url):
            raise TokenRefused("it is for another request")
        bound = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
        if claims.get("ath") != bound:
            raise TokenRefused("it is for another token")
        made = number(claims, "iat")
        now = now_ms(self._clock) / 1000
        if made is None or not now - _AGE_S - self._skew_s <= made <= now + self._skew_s:
            raise TokenRefused("it was not made just now")
        if claims.get("nonce") not in self._nonces():
            raise NonceNeeded("it names no nonce of ours")
        thumbprint = key.thumbprint()
        await self._first_time(claims.get("jti"), thumbprint, now)
        return thumbprint

    async def _first_time(self, identity: object, thumbprint: str, now: float) -> None:
        if not isinstance(identity, str) or not 0 < len(identity) <= _ID_CHARACTERS_MAX:
            raise TokenRefused("it has no id")
        until = now + 2 * (_AGE_S + self._skew_s)
        name = hashlib.sha256(f"{thumbprint}\0{identity}".encode()).hexdigest()
        while self._seen and next(iter(self._seen.values())) < now:
            self._seen.popitem(last=False)
        if name in self._seen:
            raise TokenRefused("it was used before")
        if len(self._seen) >= _SEEN_MAX:
            raise TokenRefused("more proofs come than can be remembered")
        self._seen[name] = until
        if not await self._use(f"dpop:{name}", int(until) + 1):
            raise TokenRefused("it was used before")


def _same(said: object, url: str) -> bool:
    """Whether a proof's ``htu`` is the url of the request, both without query and fragment."""
    if not isinstance(said, str):
        return False
    try:
        return _plain(said) == _plain(url)
    except ValueError:
        return False


def _plain(url: str) -> tuple[str, str | None, int | None, str]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port, parts.path or "/"
