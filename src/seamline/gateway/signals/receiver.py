"""What others tell us: security event tokens by push (RFC 8935) and poll (RFC 8936).

A token counts once: after what it says is in force, its id is remembered until no transmitter sends it any more.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from seamline.gateway.auth.errors import AuthenticationError, ProviderError
from seamline.gateway.auth.exchange import Answer, as_json
from seamline.gateway.auth.outbound import Fetch
from seamline.gateway.auth.records import Records
from seamline.gateway.auth.tokens import KeySet, TokenRefused, check_header, number, parts_of, verified
from seamline.gateway.signals import vocabulary
from seamline.gateway.signals.vocabulary import UnknownSubject, revocations_of
from seamline.kernel.clock import Clock
from seamline.kernel.settings.auth import SignalSettings
from seamline.kernel.wire.http1 import Exchange, HttpRequest
from seamline.mesh.identity.revocation import Revocation

_log = logging.getLogger("seamline.gateway")
BODY_BYTES_MAX = 64 * 1024
_OLDEST_S = 7 * 86_400
_EVENTS_MAX = 20
_POLL_S = 1.0
_POLL_FAILED_S = 5.0
_SLOT_S = 10

Revoke = Callable[[list[Revocation]], Awaitable[None]]
"""Makes entries hold; returns when they are kept."""


class SignalRefused(Exception):
    """A token that does not count; ``err`` is the code of RFC 8935."""

    def __init__(self, err: str, why: str) -> None:
        super().__init__(why)
        self.err = err


class Source:
    """One transmitter that we listen to."""

    def __init__(self, settings: SignalSettings, fetch: Fetch, clock: Clock, *, skew_s: int) -> None:
        self.settings = settings
        self._skew_s = skew_s
        self._keys = KeySet(
            settings.issuer, settings.jwks_url, fetch, clock, fresh_s=600, stale_s=86_400,
            discovery=_configuration_url(settings.issuer),
        )  # fmt: skip

    def lets(self, authorization: bytes) -> bool:
        """Whether who pushes is who was given the token for it."""
        scheme, _, token = authorization.partition(b" ")
        digest = hashlib.sha256(token.strip()).hexdigest()
        return scheme.lower() == b"bearer" and hmac.compare_digest(digest, self.settings.push_token_sha256.lower())

    async def claims(self, token: str, now_s: float) -> dict[str, Any]:
        """The claims of a token that this transmitter signed for us. Raises SignalRefused, ProviderError."""
        try:
            header, _ = parts_of(token)
            algorithm = check_header(header, self.settings.algorithms)
            if str(header.get("typ")).lower().removeprefix("application/") != "secevent+jwt":
                raise SignalRefused("invalid_request", f"a token of type {header.get('typ')!r}")
            kid = header.get("kid")
            key = await self._keys.find(kid if isinstance(kid, str) else None, algorithm)
            claims = verified(token, key, algorithm)
            issued = number(claims, "iat")
        except TokenRefused as error:
            raise SignalRefused("invalid_key", str(error)) from None
        if claims.get("iss") != self.settings.issuer:
            raise SignalRefused("invalid_issuer", f"its issuer is {claims.get('iss')!r}")
        given = claims.get("aud")
        meant = cast("list[Any]", given) if isinstance(given, list) else [given]
        if not any(isinstance(each, str) and each in self.settings.audience for each in meant):
            raise SignalRefused("invalid_audience", f"it is meant for {given!r}")
        if issued is None or not now_s - _OLDEST_S < issued < now_s + self._skew_s:
            raise SignalRefused("invalid_request", "it was not issued lately")
        jti, events = claims.get("jti"), claims.get("events")
        if not isinstance(jti, str) or not jti or not isinstance(events, dict) or "sub" in claims or "exp" in claims:
            raise SignalRefused("invalid_request", "it is no security event token of the framework")
        return claims


class Receiver:
    """Listens to all configured transmitters.

    Args:
        folder: the application's, for files of tokens.
        audit: told of what was heard and refused.
        revoke: makes entries hold everywhere.
    """

    def __init__(
        self,
        sources: Iterable[SignalSettings],
        folder: Path,
        fetch: Fetch,
        records: Records,
        clock: Clock,
        *,
        audit: Callable[..., object],
        revoke: Revoke,
        skew_s: int,
    ) -> None:
        self._sources = {each.issuer: Source(each, fetch, clock, skew_s=skew_s) for each in sources}
        self._folder = folder
        self._fetch = fetch
        self._records = records
        self._clock = clock
        self._audit = audit
        self._revoke = revoke
        self.verified: dict[str, str] = {}
        """Transmitter to the state of its last verification event."""

    @property
    def enabled(self) -> bool:
        return bool(self._sources)

    async def push(self, exchange: Exchange, address: str) -> Answer:
        """One token that came by push."""
        request = exchange.request
        token = (await request.read_all(BODY_BYTES_MAX)).decode("latin-1").strip()
        try:
            await self.take(self._pushed_by(request, token), token, address)
        except SignalRefused as refused:
            self._refused("", str(refused), address)
            told = {"err": refused.err, "description": "The security event token was not accepted."}
            return as_json(401 if refused.err == "authentication_failed" else 400, told)
        return Answer(202)

    def _pushed_by(self, request: HttpRequest, token: str) -> Source:
        """Raises SignalRefused."""
        kind = (request.header(b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind != b"application/secevent+jwt":
            raise SignalRefused("invalid_request", f"a body of type {kind!r}")
        source = self._sources.get(_issuer(token))
        if source is None or not source.lets(request.header(b"authorization") or b""):
            raise SignalRefused("authentication_failed", "nobody known pushed it")
        return source

    async def take(self, source: Source, token: str, address: str) -> None:
        """Verify a token and do what it says, once. Raises SignalRefused, ProviderError."""
        now = self._records.now()
        claims = await source.claims(token, now)
        issuer = source.settings.issuer
        name = "signal:" + hashlib.sha256(f"{issuer}\n{claims['jti']}".encode()).hexdigest()
        if await self._records.used(name):
            return  # delivered again; what it says may be out of date by now
        entries: list[Revocation] = []
        for event, payload in list(cast("dict[str, Any]", claims["events"]).items())[:_EVENTS_MAX]:
            entries += self._heard(source, event, payload, claims)
        if entries:
            await self._revoke(entries)
        await self._records.use(name, now + _OLDEST_S + 3600)
        what = ", ".join(f"{each.kind} {each.id}" for each in entries)
        self._audit("allow", principal=issuer, action="signal", resource=what, reason=claims["jti"], peer=address)

    def _heard(self, source: Source, event: str, payload: Any, claims: Mapping[str, Any]) -> list[Revocation]:
        issuer = source.settings.issuer
        if not isinstance(payload, dict):
            raise SignalRefused("invalid_request", f"the event {event[:100]!r} has no payload")
        told = cast("dict[str, Any]", payload)
        if event == vocabulary.VERIFICATION:
            self.verified[issuer] = str(told.get("state", ""))
            return []
        if event not in vocabulary.HEARD:
            return []
        subject = claims.get("sub_id", told.get("subject"))  # drafts had it in the event
        if not isinstance(subject, dict):
            raise SignalRefused("invalid_request", "it has no subject")
        try:
            about = {issuer, *source.settings.about}
            return revocations_of(event, told, cast("dict[str, Any]", subject), issuer, about)
        except UnknownSubject as error:
            self._refused(issuer, str(error), "")
            return []

    def _refused(self, issuer: str, why: str, address: str) -> None:
        _log.warning("a signal of %r was refused: %s", issuer[:200], why)
        self._audit("refuse", principal=issuer[:200], action="signal", resource="", reason=why, peer=address)

    # Poll.

    def pollers(self) -> list[Coroutine[Any, Any, None]]:
        """What runs for as long as the gateway does."""
        return [self._keep_polling(source) for source in self._sources.values() if source.settings.poll_url]

    async def _keep_polling(self, source: Source) -> None:
        done: list[str] = []
        wrong: dict[str, dict[str, str]] = {}
        slot = -1
        name = hashlib.sha256(source.settings.issuer.encode()).hexdigest()
        while True:
            pause_s = _POLL_S
            now = self._records.now()
            try:
                # One gateway asks at a time, for a few seconds each.
                if now // _SLOT_S != slot and await self._records.use(f"poll:{now // _SLOT_S}:{name}", now + 60):
                    slot = now // _SLOT_S
                if now // _SLOT_S == slot:
                    done, wrong, more = await self._poll(source, done, wrong)
                    pause_s = 0.0 if more else _POLL_S
            except (AuthenticationError, OSError, ValueError) as error:
                _log.warning("%s cannot be polled: %s", source.settings.issuer, error)
                pause_s = _POLL_FAILED_S
            await self._clock.sleep(pause_s)

    async def _poll(
        self, source: Source, done: list[str], wrong: dict[str, dict[str, str]]
    ) -> tuple[list[str], dict[str, dict[str, str]], bool]:
        """Acknowledge what was taken, and take what there is. Raises ProviderError."""
        settings = source.settings
        token = (self._folder / settings.poll_token_file).read_text(encoding="utf-8").strip()
        headers = {"content-type": "application/json", "accept": "application/json", "authorization": f"Bearer {token}"}
        question = {"ack": done, "setErrs": wrong, "maxEvents": 100, "returnImmediately": True}
        status, body = await self._fetch("POST", settings.poll_url, headers, json.dumps(question).encode())
        if status != 200:
            raise ProviderError(f"{settings.poll_url} answered {status}", "Is the token good?")
        answer = cast("dict[str, Any]", json.loads(body))
        taken: list[str] = []
        errors: dict[str, dict[str, str]] = {}
        for jti, each in cast("dict[str, Any]", answer.get("sets") or {}).items():
            try:
                await self.take(source, str(each), urlsplit(settings.poll_url).netloc)
                taken.append(jti)
            except SignalRefused as refused:
                self._refused(settings.issuer, str(refused), "")
                errors[jti] = {"err": refused.err, "description": "The token was not accepted."}
        return taken, errors, bool(answer.get("moreAvailable"))


def _issuer(token: str) -> str:
    try:
        return str(parts_of(token)[1].get("iss"))
    except TokenRefused as error:
        raise SignalRefused("invalid_request", str(error)) from None


def _configuration_url(issuer: str) -> str:
    """Where a transmitter tells about itself: the well-known path stands before the issuer's own."""
    parts = urlsplit(issuer)
    return f"{parts.scheme}://{parts.netloc}/.well-known/ssf-configuration{parts.path.rstrip('/')}"
