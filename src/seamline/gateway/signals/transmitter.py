"""What we tell others: streams of security event tokens over SSF 1.0, by push (RFC 8935) and poll (RFC 8936).

Whoever has an API key with the scope ``signals`` may have streams. An event is written to each stream in one
transaction with the note that it was, so each is told once to each stream, whichever gateways run; a stream keeps it
until its receiver has acknowledged it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from joserfc import jwt
from joserfc.jwk import ECKey

from seamline.events.webhooks.addresses import look_up, public_address
from seamline.events.webhooks.errors import WebhookError
from seamline.gateway.auth.errors import AuthenticationError, Refused
from seamline.gateway.auth.exchange import Answer, as_json
from seamline.gateway.auth.outbound import Fetch
from seamline.gateway.auth.records import Records
from seamline.gateway.auth.sealing import locked, replace_file
from seamline.gateway.signals import vocabulary
from seamline.gateway.signals.store import SignalStore, Stream
from seamline.kernel.clock import Clock
from seamline.kernel.settings.auth import loopback
from seamline.kernel.wire.http1 import Exchange
from seamline.mesh.identity.revocation import Revocation
from seamline.module.principal import User

_log = logging.getLogger("seamline.gateway")

BASE = "/.seamline/signals"
CONFIGURATION = "/.well-known/ssf-configuration"
SCOPE = "signals"
PUSH = "urn:ietf:rfc:8935"
POLL = "urn:ietf:rfc:8936"
_BODY_BYTES_MAX = 64 * 1024
_BATCH = 100
_BACKOFF_S_MAX = 300
_STREAMS_MAX = 20


class Transmitter:
    """Streams and what goes over them.

    Args:
        issuer: our own address.
        folder: for the key that signs, shared by the gateways.
        entries: what is revoked now.
    """

    def __init__(
        self,
        issuer: str,
        folder: Path,
        store: SignalStore,
        records: Records,
        fetch: Fetch,
        clock: Clock,
        entries: Callable[[], Iterable[Revocation]],
    ) -> None:
        self.issuer = issuer
        self._store = store
        self._records = records
        self._fetch = fetch
        self._clock = clock
        self._entries = entries
        self._key = _signing_key(folder / "signals.json")
        self._told: set[str] = set()
        self._changed = asyncio.Event()

    # Events.

    def changed(self) -> None:
        """Something was revoked."""
        self._changed.set()

    async def keep_telling(self) -> None:
        """Write what is revoked to the streams, and push; until cancelled."""
        while True:
            self._changed.clear()
            try:
                await self.tell()
                await self.deliver()
            except Exception:  # what was not told is told with the next
                _log.exception("signals were not sent")
            try:
                async with asyncio.timeout(1.0):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def tell(self) -> None:
        """Write what is revoked and was not told yet to every stream that wants it."""
        now = self._records.now()
        for entry in list(self._entries()):
            name = hashlib.sha256(f"{entry.kind}\n{entry.id}\n{entry.before}".encode()).hexdigest()
            found = None if name in self._told else vocabulary.event_of(entry, now)
            if found is None:
                continue
            event, payload, subject = found

            def made(stream: Stream, event: str = event, payload: Any = payload, subject: Any = subject) -> Any:
                wanted = event in stream.events and stream.status == "enabled"
                return self._token(stream, event, payload, subject) if wanted else None

            await self._store.publish(f"told:{name}", max(now + 86_400, entry.until // 1000), made, now)
            self._told.add(name)

    def _token(self, stream: Stream, event: str, payload: Any, subject: Any) -> tuple[str, str]:
        """Id and token (RFC 8417)."""
        jti = secrets.token_urlsafe(18)
        claims = {
            "iss": self.issuer, "aud": stream.audience, "iat": self._records.now(), "jti": jti, "sub_id": subject,
            "events": {event: payload},
        }  # fmt: skip
        header = {"alg": "ES256", "kid": self._key.kid or "", "typ": "secevent+jwt"}
        return jti, jwt.encode(header, claims, self._key, ["ES256"])

    async def deliver(self) -> None:
        """Push what is due, in order for each stream; a receiver that fails is tried again later and later."""
        now = self._records.now()
        for stream in await self._store.due(now):
            if await self._store.claim(stream.id, now, 30):
                await self._push(stream)

    async def _push(self, stream: Stream) -> None:
        headers = {"content-type": "application/secevent+jwt", "accept": "application/json"}
        if stream.authorization:
            headers["authorization"] = stream.authorization
        for event in await self._store.pending(stream.id, _BATCH):
            try:
                await self._check_address(stream.endpoint)
                status, body = await self._fetch("POST", stream.endpoint, headers, event.token.encode())
            except (AuthenticationError, WebhookError, OSError, ValueError) as error:
                status, body = 0, str(error).encode()
            if status in (200, 202):
                await self._store.acknowledge(stream.id, [event.jti])
                continue
            if status == 400:  # the receiver says that it will never take this one
                _log.warning("the stream %s refused a signal: %r", stream.id, body[:200])
                await self._store.acknowledge(stream.id, [event.jti])
                continue
            wait_s = min(2 ** min(stream.failures, 10), _BACKOFF_S_MAX)
            _log.warning("the stream %s is tried again in %g s: %r", stream.id, wait_s, body[:200])
            await self._store.failed(stream.id, self._records.now() + wait_s)
            return
        await self._store.succeeded(stream.id)

    async def _check_address(self, url: str) -> None:
        """A receiver may be reached at public addresses, or on this machine when we are on it ourselves."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if loopback(host) and loopback(urlsplit(self.issuer).hostname or ""):
            return
        await public_address(host, parts.port or 443, look_up)

    # What receivers ask.

    def owns(self, path: str) -> bool:
        return path == CONFIGURATION or path.startswith(BASE + "/")

    def public(self, path: str) -> Answer | None:
        """What anybody may read."""
        if path == CONFIGURATION:
            return as_json(200, self._configuration())
        if path == f"{BASE}/jwks":
            return as_json(200, {"keys": [self._key.as_dict(private=False, use="sig", alg="ES256")]})
        return None

    def _configuration(self) -> dict[str, Any]:
        base = self.issuer + BASE
        return {
            "spec_version": "1_0",
            "issuer": self.issuer,
            "jwks_uri": f"{base}/jwks",
            "delivery_methods_supported": [PUSH, POLL],
            "configuration_endpoint": f"{base}/streams",
            "status_endpoint": f"{base}/status",
            "verification_endpoint": f"{base}/verify",
            "authorization_schemes": [{"spec_urn": "urn:ietf:rfc:6750"}],
            "default_subjects": "ALL",
        }

    async def answer(self, exchange: Exchange, path: str, user: User | None, query: Mapping[str, str]) -> Answer:
        """A question of a receiver who has shown who they are. Raises Refused."""
        if user is None:
            raise Refused("streams were asked for by nobody", "Send an API key with the scope `signals`.")
        if SCOPE not in (user.scopes or ()):
            raise Refused(
                "streams were asked for without the scope", "This key is not for signals.", status=403,
                principal=user.id,
            )  # fmt: skip
        owner = user.client or user.id
        request = exchange.request
        body: dict[str, Any] = {}
        if request.method in ("POST", "PUT", "PATCH"):
            try:
                found: object = json.loads(await request.read_all(_BODY_BYTES_MAX) or b"{}")
            except ValueError:
                found = None
            if not isinstance(found, dict):
                return as_json(400, {"err": "invalid_request"})
            body = cast("dict[str, Any]", found)
        stream_id = str(body.get("stream_id") or query.get("stream_id") or "")
        name = path.removeprefix(BASE)
        if (request.method, name) == ("POST", "/streams"):
            return await self._create(owner, body)
        if (request.method, name) == ("GET", "/streams") and not stream_id:
            return as_json(200, [self._told_of(each) for each in await self._store.streams(owner)])
        if name.startswith("/poll/"):
            stream_id = name.removeprefix("/poll/")
        stream = await self._store.find(stream_id, owner)
        if stream is None:
            return as_json(404, {"err": "not_found"})
        match request.method, name:
            case "GET", "/streams":
                return as_json(200, self._told_of(stream))
            case (("PATCH" | "PUT"), "/streams"):
                return await self._change(stream, body)
            case "DELETE", "/streams":
                await self._store.delete(stream.id)
                return Answer(204)
            case "GET", "/status":
                return as_json(200, {"stream_id": stream.id, "status": stream.status, "reason": stream.reason})
            case "POST", "/status":
                return await self._set_status(stream, body)
            case "POST", "/verify":
                return await self._verify(stream, str(body.get("state", ""))[:200])
            case "POST", _ if name.startswith("/poll/"):
                return await self._poll(stream, body)
            case _:
                return as_json(405, {"err": "method_not_allowed"})

    async def _create(self, owner: str, body: Mapping[str, Any]) -> Answer:
        if len(await self._store.streams(owner)) >= _STREAMS_MAX:
            return as_json(409, {"err": "too_many_streams"})
        stream = Stream(secrets.token_urlsafe(12), owner, f"{self.issuer}/receivers/{owner}")
        stream = _changed(stream, body, self.issuer)
        if stream is None:
            return as_json(400, {"err": "invalid_request", "description": "delivery or events_requested is wrong"})
        await self._store.put(stream)
        return as_json(201, self._told_of(stream))

    async def _change(self, stream: Stream, body: Mapping[str, Any]) -> Answer:
        changed = _changed(stream, body, self.issuer)
        if changed is None:
            return as_json(400, {"err": "invalid_request"})
        await self._store.put(changed)
        return as_json(200, self._told_of(changed))

    async def _set_status(self, stream: Stream, body: Mapping[str, Any]) -> Answer:
        status = body.get("status")
        if status not in ("enabled", "paused", "disabled"):
            return as_json(400, {"err": "invalid_request"})
        reason = str(body.get("reason", ""))[:200]
        await self._store.put(msgspec.structs.replace(stream, status=status, reason=reason))
        return as_json(200, {"stream_id": stream.id, "status": status, "reason": reason})

    async def _verify(self, stream: Stream, state: str) -> Answer:
        payload = {"state": state} if state else {}
        token = self._token(stream, vocabulary.VERIFICATION, payload, {"format": "opaque", "id": stream.id})
        await self._store.add(stream.id, *token, self._records.now())
        self.changed()
        return Answer(204)

    async def _poll(self, stream: Stream, body: Mapping[str, Any]) -> Answer:
        if stream.endpoint:
            return as_json(400, {"err": "invalid_request", "description": "this stream is pushed"})
        errors: object = body.get("setErrs")
        done = [str(each) for each in cast("list[Any]", body.get("ack") or [])]
        if isinstance(errors, dict) and errors:
            _log.warning("the stream %s refused signals: %r", stream.id, str(cast("object", errors))[:300])
            done += list(cast("dict[str, Any]", errors))
        await self._store.acknowledge(stream.id, done[:1000])
        wanted = body.get("maxEvents")
        most = min(wanted, _BATCH) if isinstance(wanted, int) and wanted >= 0 else _BATCH
        paused = stream.status != "enabled"
        found = [] if paused else list(await self._store.pending(stream.id, most + 1))
        sets = {event.jti: event.token for event in found[:most]}
        return as_json(200, {"sets": sets, "moreAvailable": len(found) > most})

    def _told_of(self, stream: Stream) -> dict[str, Any]:
        delivery = {"method": PUSH, "endpoint_url": stream.endpoint}
        if not stream.endpoint:
            delivery = {"method": POLL, "endpoint_url": f"{self.issuer}{BASE}/poll/{stream.id}"}
        return {
            "stream_id": stream.id, "iss": self.issuer, "aud": stream.audience, "delivery": delivery,
            "events_supported": list(vocabulary.TOLD), "events_requested": list(stream.requested),
            "events_delivered": list(stream.events), "description": stream.description,
        }  # fmt: skip


def _changed(stream: Stream, body: Mapping[str, Any], issuer: str) -> Stream | None:
    """The stream as a receiver wants it; None for what cannot be."""
    requested: object = body.get("events_requested", list(stream.requested or vocabulary.TOLD))
    delivery: object = body.get(
        "delivery", {"method": PUSH if stream.endpoint else POLL, "endpoint_url": stream.endpoint}
    )
    if not isinstance(requested, list) or not isinstance(delivery, dict):
        return None
    way = cast("dict[str, Any]", delivery)
    endpoint = ""
    authorization = way.get("authorization_header", stream.authorization)
    if way.get("method") == PUSH:
        endpoint = way.get("endpoint_url")
        if not isinstance(endpoint, str) or len(endpoint) > 500:
            return None
        parts = urlsplit(endpoint)
        here = parts.scheme == "http" and loopback(parts.hostname or "") and urlsplit(issuer).scheme == "http"
        if not parts.hostname or parts.username or not (parts.scheme == "https" or here):
            return None
    elif way.get("method") != POLL:
        return None
    if not isinstance(authorization, str) or len(authorization) > 2000 or not authorization.isprintable():
        return None
    asked = [each for each in cast("list[Any]", requested)[:50] if isinstance(each, str)]
    return msgspec.structs.replace(
        stream, endpoint=endpoint, authorization=authorization, requested=tuple(asked),
        events=tuple(each for each in asked if each in vocabulary.TOLD),
        description=str(body.get("description", stream.description))[:200],
    )  # fmt: skip


def _signing_key(path: Path) -> ECKey:
    """Made once for all gateways that share the data folder."""
    with locked(path):
        if path.exists():
            return ECKey.import_key(msgspec.json.decode(path.read_bytes()))
        key = ECKey.generate_key("P-256", auto_kid=True)
        replace_file(path, msgspec.json.encode(key.as_dict(private=True)))
        return key
