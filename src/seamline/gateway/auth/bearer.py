"""Access tokens: JWTs after RFC 9068, plain or bound to a key (DPoP) or a client certificate (RFC 8705)."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, cast

from seamline.gateway.auth.certificates import thumbprint
from seamline.gateway.auth.dpop import ALGORITHMS as DPOP_ALGORITHMS
from seamline.gateway.auth.dpop import DpopProofs, NonceNeeded
from seamline.gateway.auth.errors import Refused
from seamline.gateway.auth.tokens import Issuer, TokenRefused, parts_of
from seamline.gateway.auth.users import scopes_of, user_of
from seamline.kernel.clock import Clock, now_ms
from seamline.kernel.wire.http1 import Header
from seamline.module.principal import User

_TYPES = ("at+jwt", "jwt", "")
_CACHED_MAX = 5_000
_CACHED_S = 300  # a key that its issuer withdrew does not serve for longer
_TOLD = "The access token is not valid."


class Trusted(NamedTuple):
    """An issuer whose access tokens count."""

    issuer: Issuer
    audience: Collection[str]
    roles_claim: str
    tenant_claim: str


class _Verified(NamedTuple):
    user: User
    expires_at: float
    key: str
    certificate: str


class BearerTokens:
    """Who brings an access token. One that was verified is known by its text until it expires."""

    def __init__(
        self, trusted: Mapping[str, Trusted], proofs: DpopProofs, clock: Clock, *, realm: str, bound_only: bool
    ) -> None:
        self._trusted = trusted
        self._proofs = proofs
        self._clock = clock
        self._realm = realm
        self._bound_only = bound_only
        self._cache: OrderedDict[str, _Verified] = OrderedDict()

    def challenges(self, error: str = "", description: str = "", *, dpop: bool = False) -> list[Header]:
        """``www-authenticate`` as RFC 6750 and RFC 9449 have it."""
        said = f'realm="{self._realm}"'
        if error:
            said += f', error="{error}"'
        if description:
            said += f', error_description="{description}"'
        proof = (b"www-authenticate", f'DPoP {said}, algs="{" ".join(DPOP_ALGORITHMS)}"'.encode())
        if dpop:
            return [proof, (b"dpop-nonce", self._proofs.nonce().encode())]
        plain = (b"www-authenticate", f"Bearer {said}".encode())
        return [proof] if self._bound_only else [plain] if error else [plain, proof]

    async def user(
        self, scheme: str, token: str, *, proofs: list[bytes], method: str, url: str, certificate: bytes | None
    ) -> User:
        """Raises Refused; ProviderError when an issuer's keys cannot be had."""
        dpop = scheme == "dpop"
        known = self._cache.get(token)
        if known is None or known.expires_at <= now_ms(self._clock) / 1000:
            known = await self._verify(token, dpop=dpop)
        if known.certificate and (
            certificate is None or not hmac.compare_digest(thumbprint(certificate).encode(), known.certificate.encode())
        ):
            raise self._refused("the token is bound to another client certificate", known.user, dpop=dpop)
        if known.key:
            if not dpop:
                raise self._refused("a token that is bound to a key came without proof", known.user, dpop=True)
            await self._prove(known, token, proofs, method, url)
        elif dpop:
            raise self._refused("the token is bound to no key", known.user, dpop=True)
        elif self._bound_only and not known.certificate:
            raise self._refused("the token is bound to nothing", known.user, dpop=True)
        return known.user

    async def _verify(self, token: str, *, dpop: bool) -> _Verified:
        try:
            claims, trusted = await self._claims(token)
            bound = _confirmation(claims)
        except TokenRefused as error:
            raise self._refused(f"a token was refused: {error}", None, dpop=dpop) from None
        client = claims.get("client_id", claims.get("azp", ""))
        user = user_of(
            claims,
            roles_claim=trusted.roles_claim,
            tenant_claim=trusted.tenant_claim,
            client=client if isinstance(client, str) else "",
            scopes=scopes_of(claims),
            session=claims["sid"] if isinstance(claims.get("sid"), str) else "",
        )
        until = min(claims["exp"], now_ms(self._clock) / 1000 + _CACHED_S)
        found = _Verified(user, until, str(bound.get("jkt", "")), str(bound.get("x5t#S256", "")))
        self._cache[token] = found
        if len(self._cache) > _CACHED_MAX:
            self._cache.popitem(last=False)
        return found

    async def _claims(self, token: str) -> tuple[dict[str, Any], Trusted]:
        _, unverified = parts_of(token)
        trusted = self._trusted.get(str(unverified.get("iss")))
        if trusted is None:
            raise TokenRefused(f"nobody here trusts its issuer {unverified.get('iss')!r}")
        claims = await trusted.issuer.verify(token, trusted.audience, _TYPES)
        if "nonce" in claims or "at_hash" in claims:
            raise TokenRefused("it is an ID token: it tells a client who signed in, and opens nothing")
        return claims, trusted

    async def _prove(self, known: _Verified, token: str, proofs: list[bytes], method: str, url: str) -> None:
        if len(proofs) != 1:
            raise self._refused(f"{len(proofs)} DPoP proofs instead of one", known.user, dpop=True)
        try:
            thumb = await self._proofs.check(proofs[0].decode("latin-1"), method, url, token)
        except NonceNeeded as error:
            raise self._unproven(str(error), known.user, "use_dpop_nonce", "Use the nonce in dpop-nonce.") from None
        except TokenRefused as error:
            told = "The DPoP proof is not valid."
            raise self._unproven(f"a proof was refused: {error}", known.user, "invalid_dpop_proof", told) from None
        if not hmac.compare_digest(thumb.encode(), known.key.encode()):
            raise self._refused("the proof is made with another key than the token's", known.user, dpop=True)

    def _unproven(self, fact: str, user: User, error: str, told: str) -> Refused:
        headers = self.challenges(error, told, dpop=True)
        return Refused(fact, told, headers=headers, principal=user.id)

    def _refused(self, fact: str, user: User | None, *, dpop: bool) -> Refused:
        headers = self.challenges("invalid_token", _TOLD, dpop=dpop)
        return Refused(fact, _TOLD, headers=headers, principal=user.id if user is not None else "")


def _confirmation(claims: Mapping[str, Any]) -> dict[str, Any]:
    """What a token is bound to. A binding that is not understood must not be taken for none. Raises TokenRefused."""
    bound = claims.get("cnf", {})
    if not isinstance(bound, dict) or set(cast("dict[str, Any]", bound)) - {"jkt", "x5t#S256"}:
        raise TokenRefused("it is bound in a way that is not known here")
    return cast("dict[str, Any]", bound)
