"""Webhooks out: each webhook of the settings is a consumer group of the module whose events it sends.

The group's memory, dead letters and replay are those of every group; the order of events is not promised to the
receiver, who sees them once or more, each time with the same ``webhook-id``.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from seamline.events.cloudevents import to_headers
from seamline.events.codec import encode_event
from seamline.events.context import EventContext
from seamline.events.record import Record
from seamline.events.webhooks.addresses import Lookup, any_addresses, look_up, public_address
from seamline.events.webhooks.errors import WebhookAddressError, WebhookError, WebhookRefusedError
from seamline.events.webhooks.tries import Tried, Tries
from seamline.kernel.clock import Clock, now_ms
from seamline.kernel.settings import BadValueError, WebhookSettings, read_secret
from seamline.kernel.settings.tables import FILE_NAME, choices
from seamline.kernel.store import Database
from seamline.kernel.wire.http1_client import HttpClientError, HttpPool
from seamline.kernel.wire.signatures import Secret, read_secrets, sign
from seamline.module.context import current
from seamline.module.module import EventHandler
from seamline.module.values import Event

PAUSES_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""After each failure, as Standard Webhooks recommends: about three days in all."""
_JITTER = 0.2
_LOOKUP_AGE_MAX_S = 30.0
_ANSWER_BYTES_MAX = 65_536

Audit = Callable[..., object]
"""Writes a line of audit about a call: decision, principal, action, resource, reason."""


class WebhookSender:
    """Sends records to one receiver.

    Args:
        audit: writes a line when the receiver's address is not one that may be sent to.
    """

    def __init__(
        self, webhook: WebhookSettings, app: str, secrets: tuple[Secret, ...], clock: Clock, *,
        lookup: Lookup = look_up, audit: Audit | None = None,
    ) -> None:  # fmt: skip
        self.webhook = webhook
        self._app = app
        self._secrets = secrets
        self._clock = clock
        self._lookup = lookup
        self._audit = audit
        url = urlsplit(webhook.url)
        self._host = url.hostname or ""
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._port = url.port or (443 if self._tls else 80)
        self._authority = url.netloc
        self._target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._pool: HttpPool | None = None
        self._address: str = ""
        self._looked_up: float = 0.0

    async def deliver(self, record: Record, attempt: int = 1) -> None:
        """Hand one record over; returns when the receiver has said yes.

        Raises:
            WebhookRefusedError: it wants no more of it.
            WebhookError: it could not be reached or said no; ``retry_after_s`` is when to try again.
        """
        now = int(self._clock.now().timestamp())
        headers = to_headers(record, self._app) | sign(self._secrets, record.id, now, record.data)
        lines = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        try:
            pool = await self.connected()
            answer = await pool.request(
                "POST", self._target, lines, record.data, timeout_s=self.webhook.timeout_s, replayable=True
            )
            async with answer:
                await answer.read_all(_ANSWER_BYTES_MAX)
        except (HttpClientError, OSError, TimeoutError) as error:
            raise self._failed(f"did not answer: {error or type(error).__name__}", attempt) from None
        except WebhookError as error:
            error.retry_after_s = self._pause_s(attempt, 0.0)
            raise
        if 200 <= answer.status < 300:
            return
        if answer.status == HTTPStatus.GONE or 300 <= answer.status < 400:
            raise WebhookRefusedError(
                f"the receiver of webhook {self.webhook.name!r} answered {answer.status}: it wants no more here",
                "Take the webhook out of seamline.toml or correct its url, then replay the dead letters.",
            )
        asked = answer.header(b"retry-after") or b""
        raise self._failed(f"answered {answer.status}", attempt, float(asked) if asked.isdigit() else 0.0)

    async def deliver_in_time(self, record: Record, tries: Tries, *, replayed: bool = False) -> None:
        """Hand one record over if it is due, going on with the tries of whoever sent it in vain before.

        Raises as :meth:`deliver` does; the error is hopeless when there were as many tries as there may be.
        """
        tried = await tries.of(record)
        given_up = tried.number >= self.webhook.attempts  # and comes again because somebody asks for it
        if given_up and replayed:
            tried = Tried()
        elif not given_up and (left_ms := tried.due_ms - self.now_ms()) > 0:
            raise self._resting(tried.number, left_ms / 1000)
        number = tried.number + 1
        try:
            await self.deliver(record, number)
        except WebhookError as error:
            error.attempts = number
            error.hopeless = error.hopeless or number >= self.webhook.attempts
            if error.hopeless:
                await tries.note(record, Tried(max(number, self.webhook.attempts), self.now_ms()))
            else:
                await tries.note(record, Tried(number, self.now_ms() + round(error.retry_after_s * 1000)))
            raise
        if tried.number:
            await tries.forget(record)

    def now_ms(self) -> int:
        return now_ms(self._clock)

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    async def connected(self) -> HttpPool:
        """Connections to an address that may be sent to, as the name leads to it now. Raises WebhookError."""
        now = self._clock.monotonic()
        if self._pool is not None and now - self._looked_up < _LOOKUP_AGE_MAX_S:
            return self._pool
        address = await self._address_now()
        if self._pool is None or address != self._address:
            await self.close()
            self._pool = HttpPool(
                address, self._port, self._tls, self._host if self._tls else None,
                self.webhook.concurrency, host_header=self._authority,
            )  # fmt: skip
        self._address, self._looked_up = address, now
        return self._pool

    async def _address_now(self) -> str:
        if self.webhook.private:
            return (await any_addresses(self._host, self._port, self._lookup))[0]
        try:
            return await public_address(self._host, self._port, self._lookup)
        except WebhookAddressError as error:
            if self._audit is not None:
                self._audit(
                    "refuse", principal=self.webhook.module, action="webhook", resource=self.webhook.name,
                    reason=f"{error.code}: {error.fact}",
                )  # fmt: skip
            raise

    def _failed(self, what: str, attempt: int, asked_s: float = 0.0) -> WebhookError:
        error = WebhookError(f"the receiver of webhook {self.webhook.name!r} {what}", "It is tried again.")
        error.retry_after_s = self._pause_s(attempt, asked_s)
        return error

    def _resting(self, number: int, left_s: float) -> WebhookError:
        times = f"{number} time{'s' if number > 1 else ''}"
        error = WebhookError(
            f"the receiver of webhook {self.webhook.name!r} has been tried {times} before this process was here",
            f"It is tried again in {left_s:.0f} s.",
        )
        error.attempts, error.retry_after_s = number, left_s
        return error

    @staticmethod
    def _pause_s(attempt: int, asked_s: float) -> float:
        pause_s = PAUSES_S[min(attempt, len(PAUSES_S)) - 1]
        return max(pause_s * random.uniform(1 - _JITTER, 1 + _JITTER), min(asked_s, PAUSES_S[-1]))


def open_senders(
    webhooks: tuple[WebhookSettings, ...], app: str, module: str, clock: Clock, *,
    environment: Mapping[str, str] | None = None, audit: Audit | None = None,
) -> list[WebhookSender]:  # fmt: skip
    """The senders of one module's webhooks. Raises BadValueError or WebhookSecretError if a secret cannot be used."""
    return [
        WebhookSender(webhook, app, read_secrets(read_secret(webhook.secret, environment)), clock, audit=audit)
        for webhook in webhooks
        if webhook.module == module
    ]


def chosen_events(webhook: WebhookSettings, owners: Mapping[type[Event], str]) -> list[type[Event]]:
    """The events that a webhook sends. Raises BadValueError if its module declares no such event."""
    declared = {event.__name__: event for event, module in owners.items() if module == webhook.module}
    for name in webhook.events:
        if name not in declared:
            raise BadValueError(
                f"module {webhook.module!r} declares no event {name!r}",
                choices(name, declared),
                place=f"{FILE_NAME} [events.webhooks] {webhook.name}",
            )
    return [declared[name] for name in webhook.events]


def webhook_handlers(sender: WebhookSender, owners: Mapping[type[Event], str]) -> list[EventHandler]:
    """What the events runtime hears with in the module's name. Raises BadValueError as :func:`chosen_events` does."""
    webhook = sender.webhook
    return [
        EventHandler(
            event=event,
            function=_sending(sender),
            group=f"webhook-{webhook.name}",
            concurrency=webhook.concurrency,
            start="latest",
            attempts=webhook.attempts,
            timeout_s=webhook.timeout_s + 15,
            outside=True,
        )
        for event in chosen_events(webhook, owners)
    ]


def _sending(sender: WebhookSender):  # noqa: ANN202  # an event handler
    tries: Tries | None = None

    async def send_webhook(event: Event, context: EventContext, database: Database) -> None:
        nonlocal tries
        if tries is None:
            opened = Tries(database, sender.webhook.name)
            await opened.open(sender.now_ms())
            tries = opened
        await sender.deliver_in_time(_record(event, context), tries, replayed=context.replayed)

    return send_webhook


def _record(event: Event, context: EventContext) -> Record:
    call = current()
    trace = call.trace if call is not None else None
    return Record(
        id=context.id,
        source=context.source,
        type=type(event).__name__,
        data=encode_event(event),
        time_ms=round(context.time.timestamp() * 1000),
        key=context.key,
        version=type(event).event_version,
        trace=trace.to_traceparent() if trace is not None else "",
        headers=dict(context.headers),
    )
