"""The OpenID Connect provider that people sign in with, as its client sees it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

from seamline.gateway.auth.errors import ProviderError
from seamline.gateway.auth.outbound import Fetch, get_json, post_form
from seamline.gateway.auth.tokens import Issuer, KeySet, TokenRefused, discovery_url
from seamline.kernel.clock import Clock
from seamline.kernel.settings.auth import loopback

_log = logging.getLogger("seamline.gateway")

_FRESH_S = 600.0
_RETRY_S = 2.0
_PLAIN = re.compile(r"[!#-:=?-\[\]_a-z~%&@]+")
"""No space, quote, semicolon, angle bracket or control: an address goes into headers."""
_ID_TOKEN_TYPES = ("jwt", "")


@dataclass(frozen=True, slots=True)
class Client:
    """How the provider knows us, and what we ask it for."""

    issuer: str
    client_id: str
    client_secret: str
    scopes: Sequence[str]
    algorithms: Sequence[str]
    skew_s: int
    keys_fresh_s: int
    keys_stale_s: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a sign-in or a renewal gave. ``claims`` are those of a verified ID token; None if a renewal had none."""

    claims: Mapping[str, Any] | None
    id_token: str
    refresh_token: str


class Provider:
    """One provider. Its discovery document is read when first needed, and again now and then."""

    def __init__(self, client: Client, fetch: Fetch, clock: Clock) -> None:
        self.client = client
        self._fetch = fetch
        self._clock = clock
        self._metadata: dict[str, Any] = {}
        self._read_at = self._tried_at = float("-inf")
        self._trouble: ProviderError | None = None
        keys = KeySet(client.issuer, "", fetch, clock, fresh_s=client.keys_fresh_s, stale_s=client.keys_stale_s)
        self.issuer = Issuer(client.issuer, keys, clock, algorithms=client.algorithms, skew_s=client.skew_s)

    async def authorization_url(
        self, redirect_uri: str, state: str, nonce: str, verifier: str, *, anew: bool = False
    ) -> str:
        """Where a browser is sent to sign in; ``anew``: also if it is signed in there. Raises ProviderError."""
        metadata = await self._known()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        question = urlencode({
            "response_type": "code",
            "client_id": self.client.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self.client.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **({"prompt": "login"} if anew else {}),
        })  # fmt: skip
        endpoint = cast("str", metadata["authorization_endpoint"])
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{question}"

    async def check_answer(self, said: str | None) -> None:
        """That the answer to an authorization request comes from this provider (RFC 9207). Raises TokenRefused."""
        required = (await self._known()).get("authorization_response_iss_parameter_supported") is True
        if (said is None and required) or (said is not None and said != self.client.issuer):
            raise TokenRefused(f"the answer comes from {said!r}")

    async def redeem(self, code: str, redirect_uri: str, verifier: str, nonce: str) -> Tokens:
        """Tokens for an authorization code. Raises TokenRefused, ProviderError."""
        answer = await self._ask_token({
            "grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": verifier,
        })  # fmt: skip
        id_token = answer.get("id_token")
        if not isinstance(id_token, str):
            raise TokenRefused("the provider gave no ID token")
        claims = await self._identity(id_token)
        said = claims.get("nonce")
        if not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
            raise TokenRefused("the ID token is for another sign-in")
        return Tokens(claims, id_token, _text(answer.get("refresh_token")))

    async def renew(self, refresh_token: str, subject: str) -> Tokens:
        """New tokens for the same user. Raises TokenRefused when the provider no longer vouches, ProviderError."""
        answer = await self._ask_token({"grant_type": "refresh_token", "refresh_token": refresh_token})
        id_token = answer.get("id_token")
        claims: Mapping[str, Any] | None = None
        if isinstance(id_token, str):
            claims = await self._identity(id_token)
            if claims["sub"] != subject:
                raise TokenRefused("the renewed ID token is about somebody else")
        return Tokens(claims, _text(id_token), _text(answer.get("refresh_token")) or refresh_token)

    async def sign_out_url(self, id_token: str, back: str) -> str | None:
        """Where the provider ends its own session (RP-initiated logout); None if it does not offer that."""
        endpoint = await self._end_session_endpoint()
        if endpoint is None:
            return None
        question = {"client_id": self.client.client_id, "post_logout_redirect_uri": back}
        if id_token:
            question["id_token_hint"] = id_token
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(question)}"

    async def sign_out_origin(self) -> str:
        """Scheme and host of :meth:`sign_out_url`; empty if there is none."""
        parts = urlsplit(await self._end_session_endpoint() or "")
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""

    async def _end_session_endpoint(self) -> str | None:
        try:
            endpoint = (await self._known()).get("end_session_endpoint")
        except ProviderError as error:
            _log.warning("%s", error)  # a fact; our own session ends all the same
            return None
        return endpoint if isinstance(endpoint, str) and self._acceptable(endpoint) else None

    async def _identity(self, id_token: str) -> dict[str, Any]:
        claims = await self.issuer.verify(id_token, [self.client.client_id], _ID_TOKEN_TYPES)
        audience, party = claims.get("aud"), claims.get("azp")
        several = isinstance(audience, list) and len(cast("list[Any]", audience)) > 1
        if party != self.client.client_id and (several or party is not None):
            raise TokenRefused(f"the ID token was made for {party!r}")
        return claims

    async def _ask_token(self, fields: dict[str, str]) -> dict[str, Any]:
        metadata = await self._known()
        client = self.client
        headers: dict[str, str] = {}
        ways = cast("list[Any]", metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"])
        if not client.client_secret:
            fields["client_id"] = client.client_id
        elif "client_secret_basic" in ways:
            pair = f"{quote(client.client_id, safe='')}:{quote(client.client_secret, safe='')}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            fields |= {"client_id": client.client_id, "client_secret": client.client_secret}
        status, answer = await post_form(self._fetch, cast("str", metadata["token_endpoint"]), fields, headers)
        if status == 400:
            raise TokenRefused(f"the provider refused it ({_text(answer.get('error'))[:40]!r})")
        if status != 200:
            raise ProviderError(
                f"the token endpoint of {client.issuer} answered {status} ({_text(answer.get('error'))[:40]!r})",
                "Are client_id and client_secret right?",
            )
        return answer

    async def _known(self) -> dict[str, Any]:
        """The discovery document; an old one serves while no new one can be had. Raises ProviderError."""
        now = self._clock.monotonic()
        if now - self._read_at < _FRESH_S:
            return self._metadata
        if self._trouble is None or now - self._tried_at >= _RETRY_S:
            self._tried_at = now
            try:
                found = await get_json(self._fetch, discovery_url(self.client.issuer))
                self._check(found)
            except ProviderError as error:
                _log.warning("%s", error)
                self._trouble = error
            else:
                self._metadata, self._read_at, self._trouble = found, now, None
        if not self._metadata and self._trouble is not None:
            raise ProviderError(self._trouble.fact, self._trouble.remedy)
        return self._metadata

    def _check(self, found: Mapping[str, Any]) -> None:
        if found.get("issuer") != self.client.issuer:
            raise ProviderError(
                f"{self.client.issuer} calls itself {found.get('issuer')!r}", "Write issuer just as the provider does."
            )
        for name in ("authorization_endpoint", "token_endpoint"):
            url = found.get(name)
            if not isinstance(url, str) or not self._acceptable(url):
                raise ProviderError(f"the {name} of {self.client.issuer} is {url!r}", "It must be an https address.")
        ways = found.get("code_challenge_methods_supported")
        if isinstance(ways, list) and "S256" not in ways:
            raise ProviderError(f"{self.client.issuer} does not know PKCE with S256", "Switch it on there.")

    def _acceptable(self, url: str) -> bool:
        if not _PLAIN.fullmatch(url):
            return False
        parts = urlsplit(url)
        here = loopback(parts.hostname or "") and urlsplit(self.client.issuer).scheme == "http"
        return parts.scheme == "https" or (parts.scheme == "http" and here)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
