"""Webhooks in: an ASGI app that a module mounts, which publishes what others send as the module's own events.

A message is answered with 2xx only when the events in it are on disk, together with the note of its ``webhook-id``:
the same one again is answered likewise and changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Column, Index, MetaData, String, Table, delete, insert
from sqlalchemy.exc import IntegrityError

from seamline.events.cloudevents import BATCH, STRUCTURED, check_text, from_http
from seamline.events.codec import decode_event
from seamline.events.errors import CloudEventError, EventDecodeError
from seamline.events.events import Events
from seamline.events.record import Record
from seamline.kernel.clock import Clock
from seamline.kernel.settings import read_secret
from seamline.kernel.store import Database
from seamline.kernel.wire.errors import WebhookSignatureError
from seamline.kernel.wire.signatures import TOLERANCE_S, Secret, read_secrets, verify
from seamline.module.errors import EventError
from seamline.module.module import Module
from seamline.module.values import Event

_log = logging.getLogger("seamline.webhooks")

Message = MutableMapping[str, Any]
Make = Callable[[Record], Event | None]

METADATA = MetaData()
received = Table(
    "seamline_webhooks_received",
    METADATA,
    Column("endpoint", String, primary_key=True),
    Column("message_id", String, primary_key=True),
    Column("received_ms", BigInteger, nullable=False),
    Index("seamline_webhooks_received_by_time", "received_ms"),
)
REMEMBERED_S = 7 * 86_400
_FORGET_EVERY = 1000


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Somebody who sends webhooks, and what becomes of them.

    Args:
        secret: the name of the environment variable with the secret; several with spaces between.
        event: what is published: its fields are the message's data.
        make: makes the event instead, from a record whose ``data`` is the CloudEvent's, or the whole body; None leaves
            the message out.
        bytes_max: of a message.
        tolerance_s: how far its timestamp may be off.
    """

    secret: str
    event: type[Event] | None = None
    make: Make | None = None
    bytes_max: int = 262_144
    tolerance_s: float = TOLERANCE_S


class WebhookIngress:
    """The ASGI app: ``POST <at>/<endpoint>``. Made by :func:`webhook_ingress`."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = dict(endpoints)
        self._secrets: dict[str, tuple[Secret, ...]] = {}
        self._events: Events | None = None
        self._database: Database | None = None
        self._clock: Clock | None = None
        self.taken = 0
        """Messages taken in so far; now and then old ids are forgotten."""

    async def begin(
        self, events: Events, database: Database, clock: Clock, environment: Mapping[str, str] | None = None
    ) -> None:
        """Before the first request. Raises BadValueError or WebhookSecretError if a secret cannot be used."""
        self._secrets = {
            name: read_secrets(read_secret(endpoint.secret, environment)) for name, endpoint in self._endpoints.items()
        }
        await database.ensure(METADATA)
        self._events, self._database, self._clock = events, database, clock

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            return
        status, said = await self._answer(scope, receive)
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(said.encode()))]
        if status == 405:
            headers.append((b"allow", b"POST"))
        await send({"type": "http.response.start", "status": status, "headers": headers if said else []})
        await send({"type": "http.response.body", "body": said.encode()})

    async def _answer(self, scope: Message, receive: Callable[[], Awaitable[Message]]) -> tuple[int, str]:
        name = str(scope["path"]).removeprefix(str(scope.get("root_path", ""))).strip("/")
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            return 404, "There is no such endpoint.\n"
        if scope["method"] != "POST":
            return 405, "Webhooks are sent by POST.\n"
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        body = await _read(receive, headers, endpoint.bytes_max)
        if body is None:
            return 413, f"A message has at most {endpoint.bytes_max} bytes.\n"
        assert self._clock is not None
        now = self._clock.now().timestamp()
        try:
            message_id = verify(self._secrets[name], headers, body, now, endpoint.tolerance_s)
        except WebhookSignatureError as error:
            _log.warning("endpoint %s: %s", name, error)
            return 401, "The signature is not valid.\n"
        try:
            events = _events_in(endpoint, headers, body, message_id)
            await self._publish(name, message_id, events, round(now * 1000))
        except (CloudEventError, EventDecodeError) as error:
            return 400, f"{error}\n"
        except Exception:
            _log.exception("endpoint %s: a webhook could not be kept, and is sent again", name)
            return 503, "It could not be kept now.\n"
        return 204, ""

    async def _publish(self, name: str, message_id: str, events: Sequence[Event], now_ms: int) -> None:
        """All of the message's events and the note of it, or nothing; nothing if it was here before."""
        assert self._database is not None
        assert self._events is not None
        try:
            async with self._database.transaction() as connection:
                note = {"endpoint": name, "message_id": message_id, "received_ms": now_ms}
                try:
                    await connection.execute(insert(received).values(note))
                except IntegrityError:
                    raise _SeenBeforeError from None
                self.taken += 1
                if self.taken % _FORGET_EVERY == 1:
                    old = received.c.received_ms < now_ms - REMEMBERED_S * 1000
                    await connection.execute(delete(received).where(old))
                await self._events.publish_all(events)
        except _SeenBeforeError:
            return


class _SeenBeforeError(Exception):
    pass


def webhook_ingress(module: Module, endpoints: Mapping[str, Endpoint], *, at: str = "/hooks") -> WebhookIngress:
    """Let a module take in webhooks at ``<at>/<endpoint>``::

    webhook_ingress(module, {"partner": Endpoint(secret="PARTNER_SECRET", event=PartnerPaid)})

    Raises:
        EventError: an endpoint names no event of this module, nor how to make one.
    """
    for name, endpoint in endpoints.items():
        declared = endpoint.event.__module__ if endpoint.event is not None else module.package
        if (endpoint.event is None and endpoint.make is None) or not f"{declared}.".startswith(f"{module.package}."):
            raise EventError(
                f"the webhook endpoint {name!r} of module {module.name!r} names no event that the module declares",
                "Write Endpoint(event=...) with an event of its contract's package, or Endpoint(make=...).",
                place=module.place,
            )
    ingress = WebhookIngress(endpoints)

    async def begin_webhooks(events: Events, database: Database, clock: Clock) -> None:
        await ingress.begin(events, database, clock)

    module.startup(begin_webhooks)
    module.mount(ingress, at=at)
    return ingress


def _events_in(endpoint: Endpoint, headers: Mapping[str, str], body: bytes, message_id: str) -> list[Event]:
    """What a message says. Raises CloudEventError or EventDecodeError."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type in (STRUCTURED, BATCH) or "ce-specversion" in headers:
        records = from_http(headers, body)
    else:
        records = [Record(id=message_id, source="./webhook", type="webhook", data=body, time_ms=0)]
    events: list[Event] = []
    for record in records:
        if endpoint.make is not None:
            made = endpoint.make(record)
        else:
            assert endpoint.event is not None
            made = decode_event(endpoint.event, record)
        if made is not None:
            key = str(getattr(made, made.event_key)) if made.event_key else ""
            check_text(msgspec.structs.replace(record, key=key))
            events.append(made)
    return events


async def _read(receive: Callable[[], Awaitable[Message]], headers: Mapping[str, str], bytes_max: int) -> bytes | None:
    """The body, or None if it is too long."""
    said = headers.get("content-length", "0")
    if said.isdigit() and int(said) > bytes_max:
        return None
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > bytes_max:
            return None
        if not message.get("more_body"):
            return bytes(body)


async def _live(receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
