"""Tells people of incidents: signed webhooks to ``http://`` and ``https://``, everything else through Apprise.

Each receiver has a queue of its own, so that one that does not answer holds up nobody else. A state of an incident is
sent to a receiver once; what failed is tried again for about an hour, unless a newer state of the same incident has
come meanwhile. No receiver gets more than ten messages in a minute; the rest waits.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

from seamline.kernel.clock import Clock, SystemClock
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.wire.http1_client import HttpClientError, HttpPool
from seamline.kernel.wire.signatures import Secret, read_secrets, sign
from seamline.observe.errors import NotifyError
from seamline.observe.incidents import Incident, State

PAUSES_S: Final = (2.0, 10.0, 60.0, 300.0, 900.0, 1800.0)
"""After each failure; then it is given up, and said in the log."""
WAITING_MAX: Final = 100
PER_MINUTE_MAX: Final = 10
SENT_MAX: Final = 1_000
TIMEOUT_S: Final = 10.0
_ANSWER_BYTES_MAX: Final = 65_536
_JITTER: Final = 0.2
_log = logging.getLogger("seamline.notify")


class Message:
    """One state of one incident, as it is told. ``key`` is the same for the same state."""

    __slots__ = ("body", "incident", "key", "state", "title")

    def __init__(self, incident: Incident, state: State, app: str, portal: str) -> None:
        self.incident = incident.id
        self.state: State = state
        top = incident.suspects[0].module if incident.suspects and state == "explained" else ""
        self.key = ":".join((incident.id, str(incident.began_ns), state, str(incident.reopened), top))
        self.title = f"{app}: {incident.id} {state}: {incident.title}"
        lines = [f"{incident.title} ({incident.severity})", f"since {_clock_time(incident.began_ns)}"]
        if state == "closed":
            lines[1] = f"from {_clock_time(incident.began_ns)} to {_clock_time(incident.ended_ns)}"
        lines += [claim.text for claim in incident.summary.claims]
        if state == "explained" and not incident.summary.claims and incident.suspects:
            suspect = incident.suspects[0]
            lines.append(f"Suspected: {suspect.module} ({suspect.kind})")
            lines += [f"- {each.text}" for each in suspect.evidence[:5]]
        if portal:
            lines.append(f"{portal.rstrip('/')}/incidents/{incident.id}")
        self.body = "\n".join(lines)

    def to_json(self, incident: Incident, app: str) -> bytes:
        """The body of a webhook."""
        suspects = [
            {"module": s.module, "kind": s.kind, "method": s.method, "score": s.score} for s in incident.suspects
        ]
        told: dict[str, Any] = {
            "type": f"incident.{self.state}",
            "timestamp": _iso(incident.ended_ns or incident.explained_ns or incident.detected_ns),
            "data": {
                "application": app, "id": incident.id, "title": incident.title, "severity": incident.severity,
                "status": incident.status, "began": _iso(incident.began_ns), "detected": _iso(incident.detected_ns),
                "ended": _iso(incident.ended_ns), "abstained": incident.abstained, "suspects": suspects,
                "summary": incident.summary.text, "text": self.body,
            },
        }  # fmt: skip
        return json.dumps(told, ensure_ascii=False).encode()


class Way(Protocol):
    """How one receiver is reached. Raises an exception if it was not."""

    name: str

    async def send(self, message: Message, body: bytes) -> None: ...

    async def close(self) -> None: ...


class WebhookWay:
    """Posts JSON, signed as Standard Webhooks says; ``webhook-id`` is the same for each try of one state."""

    def __init__(self, url: str, secrets: Sequence[Secret], clock: Clock) -> None:
        parts = urlsplit(url)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname or "", parts.port or (443 if self._tls else 80)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._secrets = secrets
        self._clock = clock
        self._pool: HttpPool | None = None
        self.name = f"{parts.scheme}://{parts.hostname}"  # a path or query is often a secret in itself

    async def send(self, message: Message, body: bytes) -> None:
        if self._pool is None:
            self._pool = HttpPool(self._host, self._port, ssl=self._tls, connections_max=1)
        now = int(self._clock.now().timestamp())
        headers = {"content-type": "application/json"} | sign(self._secrets, f"msg_{message.key}", now, body)
        lines = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        answer = await self._pool.request("POST", self._target, lines, body, timeout_s=TIMEOUT_S, replayable=True)
        async with answer:
            await answer.read_all(_ANSWER_BYTES_MAX)
        if not 200 <= answer.status < 300:
            said = HTTPStatus(answer.status).phrase if answer.status in set(HTTPStatus) else ""
            raise HttpClientError(f"answered {answer.status} {said}".rstrip())

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()


class _Sends(Protocol):
    """What is used of ``apprise.Apprise``, whose own types are partly unknown."""

    def add(self, servers: str) -> bool: ...

    def notify(self, *, body: str, title: str) -> object: ...


class AppriseWay:
    """Whatever Apprise knows: ``mailto://``, ``slack://``, ``tgram://`` and a hundred more."""

    def __init__(self, url: str) -> None:
        scheme = url.partition("://")[0]
        self.name = f"{scheme}://..."
        self._apprise = _apprise(url, scheme)

    async def send(self, message: Message, body: bytes) -> None:
        del body
        async with asyncio.timeout(3 * TIMEOUT_S):
            sent = await asyncio.to_thread(self._apprise.notify, body=message.body, title=message.title)
        if not sent:
            raise HttpClientError("did not take it")

    async def close(self) -> None:
        return


class Notifier:
    """Sends messages to all receivers; :meth:`tell` never waits.

    Args:
        receivers: URLs.
        secret: signs webhooks, as Standard Webhooks writes secrets; without one they are not sent.
        portal: the portal's address, which messages lead to.

    Raises:
        NotifyError: a receiver cannot be used.
        WebhookSecretError: the secret is none.
    """

    def __init__(
        self, receivers: Sequence[str], *, app: str, secret: str = "", portal: str = "", clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self._clock = clock or SystemClock()
        self._app = app
        self._portal = portal
        secrets = read_secrets(secret) if secret else ()
        self._receivers = [_Receiver(_way(url, secrets, self._clock), self._clock) for url in receivers]
        self._tasks = TaskOwner("notify")

    @property
    def failed(self) -> Mapping[str, int]:
        """How many messages were given up, by receiver."""
        return {receiver.way.name: receiver.failed for receiver in self._receivers if receiver.failed}

    def start(self) -> None:
        for receiver in self._receivers:
            self._tasks.spawn(receiver.run(), name=f"notify {receiver.way.name}")

    def tell(self, incident: Incident, state: State) -> None:
        """Send this state of an incident to all, if it was not sent yet."""
        message = Message(incident, state, self._app, self._portal)
        body = message.to_json(incident, self._app)
        for receiver in self._receivers:
            receiver.put(message, body)

    async def idle(self) -> None:
        """Until everything is sent or given up."""
        for receiver in self._receivers:
            await receiver.empty.wait()

    async def stop(self) -> None:
        await self._tasks.stop()
        for receiver in self._receivers:
            await receiver.way.close()


class _Receiver:
    def __init__(self, way: Way, clock: Clock) -> None:
        self.way = way
        self.failed = 0
        self.empty = asyncio.Event()
        self.empty.set()
        self._clock = clock
        self._waiting: deque[tuple[Message, bytes]] = deque()
        self._more = asyncio.Event()
        self._told: OrderedDict[str, None] = OrderedDict()
        self._recent: deque[float] = deque()
        self._held = 0

    def put(self, message: Message, body: bytes) -> None:
        if message.key in self._told:
            return
        self._told[message.key] = None
        if len(self._told) > SENT_MAX:
            self._told.popitem(last=False)
        # Who has not heard that it was opened needs not hear it when it is closed already.
        waiting = [(old, its) for old, its in self._waiting if old.incident != message.incident]
        self._waiting = deque([*waiting, (message, body)])
        if len(self._waiting) > WAITING_MAX:
            self._give_up(self._waiting.popleft()[0], "too many wait")
        self.empty.clear()
        self._more.set()

    async def run(self) -> None:
        while True:
            await self._more.wait()
            while self._waiting:
                await self._hold_back()
                message, body = self._waiting.popleft()
                await self._send(message, body)
            self._more.clear()
            self.empty.set()

    async def _hold_back(self) -> None:
        """Until one more may be sent."""
        now = self._clock.monotonic()
        while self._recent and now - self._recent[0] >= 60:
            self._recent.popleft()
        if len(self._recent) >= PER_MINUTE_MAX:
            _log.warning("%s: more than %s messages in a minute; the rest waits", self.way.name, PER_MINUTE_MAX)
            await self._clock.sleep(60 - (now - self._recent[0]))
        self._recent.append(self._clock.monotonic())

    async def _send(self, message: Message, body: bytes) -> None:
        why = ""
        for pause_s in (*PAUSES_S, None):
            try:
                await self.way.send(message, body)
            except Exception as error:
                why = str(error) or type(error).__name__
            else:
                return
            if pause_s is None:
                break
            await self._clock.sleep(pause_s * random.uniform(1 - _JITTER, 1 + _JITTER))
            if any(newer.incident == message.incident for newer, _ in self._waiting):
                return  # what is told next says more
        self._give_up(message, why)

    def _give_up(self, message: Message, why: str) -> None:
        self.failed += 1
        _log.error("%s was not told that %s is %s: %s", self.way.name, message.incident, message.state, why)


def _way(url: str, secrets: Sequence[Secret], clock: Clock) -> Way:
    scheme = url.partition("://")[0].lower()
    if scheme not in {"http", "https"}:
        return AppriseWay(url)
    if not urlsplit(url).hostname:
        raise NotifyError(f"the receiver {scheme}://... names no host", "Write https://<host>/<path> in notify.")
    if not secrets:
        raise NotifyError(
            "a webhook is to tell of incidents, and there is no secret to sign it with",
            "Set notify_secret, best in the environment: SEAMLINE_OBSERVE_NOTIFY_SECRET=whsec_...",
        )
    return WebhookWay(url, secrets, clock)


def _apprise(url: str, scheme: str) -> _Sends:
    try:
        from apprise import Apprise  # heavy, and only for those who have such a receiver
    except ImportError:
        raise NotifyError(
            f"the receiver {scheme}://... needs Apprise, which is not installed", "pip install seamline[notify]"
        ) from None
    made = cast("_Sends", Apprise())
    if not made.add(url):
        raise NotifyError(
            f"the receiver {scheme}://... is not an address that Apprise understands",
            "How each looks stands at https://appriseit.com; or write https:// for a signed webhook.",
        )
    return made


def _iso(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat(timespec="milliseconds") if at_ns else ""


def _clock_time(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
