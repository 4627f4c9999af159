"""Sends what our processes tell to any backend that takes OTLP.

Each signal has a queue of its own, so that a backend that takes only traces gets them. Nobody waits for it: what has no
room in the queue, or was refused for good or too often, is dropped and counted.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from seamline.kernel.clock import Clock, SystemClock
from seamline.kernel.lifetime import TaskOwner
from seamline.kernel.settings.observe import TelemetrySettings
from seamline.kernel.signal import log
from seamline.observe.records import Batch

if TYPE_CHECKING:
    from seamline.observe.otlp.messages import Request
    from seamline.observe.otlp.senders import Outcome, Sender
    from seamline.observe.otlp.telling import Item, Teller

QUEUED_MAX: Final = 50_000
"""Spans, log lines or measurements that wait."""
AT_ONCE: Final = 512
"""In one request."""
LINGER_S: Final = 1.0
ATTEMPTS: Final = 6
_FIRST_PAUSE_S: Final = 1.0
_PAUSE_S_MAX: Final = 60.0
_SIGNALS: Final = ("traces", "logs", "metrics")
_log = log.get("seamline.observe")


class OtlpExporter:
    """Sends from :meth:`start` to :meth:`stop`.

    Args:
        settings: ``otlp`` is the endpoint, to which ``/v1/traces`` and so on are added.
        application: ``service.namespace``.
        deployment: ``deployment.environment.name``.
        clock: for the pauses between attempts.

    Raises OtlpExtraError where gRPC is asked for and not installed.
    """

    def __init__(
        self, settings: TelemetrySettings, *, application: str = "", deployment: str = "", clock: Clock | None = None
    ) -> None:
        # Who sends nothing loads nothing of it.
        from seamline.observe.otlp.telling import Teller, Whole

        self.sent: Counter[str] = Counter()
        """By signal."""
        self.dropped: Counter[str] = Counter()
        """By signal: what the backend will never see."""
        self.trouble = ""
        """Empty, or for people."""
        self._clock = clock or SystemClock()
        self._shown = _without_credentials(settings.otlp)
        self._sender: Sender = _sender(settings, self._clock)
        self._teller: Teller = Teller(Whole(application, deployment), json=self._sender.json)
        self._queues: dict[str, deque[Item]] = {signal: deque() for signal in _SIGNALS}
        self._news = {signal: asyncio.Event() for signal in _SIGNALS}
        self._owner = TaskOwner("telemetry export")
        self._stopping = False

    def add(self, batch: Batch) -> None:
        """Take a batch, as far as there is room."""
        from seamline.observe.otlp.telling import items

        for signal, found in items(batch).items():
            queue = self._queues[signal]
            room = max(QUEUED_MAX - len(queue), 0)
            if len(found) > room:
                self.dropped[signal] += len(found) - room
            if found and room:
                queue.extend(found[:room])
                self._news[signal].set()

    def start(self) -> None:
        for signal in _SIGNALS:
            self._owner.spawn(self._send_all(signal), name=f"export of {signal}")

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Send what waits, once and within the time; what is left is dropped."""
        self._stopping = True
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(self._flush(signal) for signal in _SIGNALS))
        except TimeoutError:
            pass
        finally:
            await self._owner.stop()
            for signal, queue in self._queues.items():
                self.dropped[signal] += len(queue)
                queue.clear()
            await self._sender.close()

    async def _send_all(self, signal: str) -> None:
        news = self._news[signal]
        while True:
            await news.wait()
            await self._clock.sleep(LINGER_S)  # many processes tell in the same second
            news.clear()
            while self._queues[signal] and not self._stopping:
                await self._deliver(signal, self._take(signal))

    async def _flush(self, signal: str) -> None:
        while self._queues[signal]:
            await self._deliver(signal, self._take(signal))

    def _take(self, signal: str) -> list[Item]:
        queue = self._queues[signal]
        return [queue.popleft() for _ in range(min(AT_ONCE, len(queue)))]

    async def _deliver(self, signal: str, chunk: list[Item]) -> None:
        delivered = False
        try:
            delivered = await self._try(signal, chunk)
        finally:
            self.sent[signal] += len(chunk) if delivered else 0
            self.dropped[signal] += 0 if delivered else len(chunk)

    async def _try(self, signal: str, chunk: list[Item]) -> bool:
        try:
            request = self._teller.request(signal, chunk)
        except Exception:  # one record that makes no sense must not end the export of all others
            _log.exception("telemetry could not be made into a request")
            return False
        pause_s = _FIRST_PAUSE_S
        for attempt in range(1, ATTEMPTS + 1):
            outcome = await self._attempt(signal, request)
            if not outcome.trouble:
                self._went_well(signal, outcome)
                return True
            self._went_wrong(signal, outcome)
            if not outcome.again or attempt == ATTEMPTS or self._stopping:
                return False
            # Half of the pause is fixed, half is drawn: many who were refused together must not come back together.
            drawn_s = pause_s / 2 + random.random() * pause_s / 2
            await self._clock.sleep(min(max(drawn_s, outcome.after_s), _PAUSE_S_MAX))
            pause_s *= 2
        return False

    async def _attempt(self, signal: str, request: Request) -> Outcome:
        try:
            return await self._sender.send(signal, request)
        except Exception as error:  # likewise, one that cannot be encoded
            from seamline.observe.otlp.senders import Outcome

            _log.exception("telemetry could not be made into a request")
            return Outcome(type(error).__name__)

    def _went_well(self, signal: str, outcome: Outcome) -> None:
        if outcome.rejected > 0:
            self.dropped[f"{signal} refused by the backend"] += outcome.rejected
        if self.trouble:
            self.trouble = ""
            _log.info("telemetry goes to %s again", self._shown)

    def _went_wrong(self, signal: str, outcome: Outcome) -> None:
        if not self.trouble:
            _log.warning("telemetry (%s) does not get to %s: %s", signal, self._shown, outcome.trouble)
        self.trouble = f"Telemetry does not get to {self._shown}: {outcome.trouble}."


def _sender(settings: TelemetrySettings, clock: Clock) -> Sender:
    from seamline.observe.otlp.senders import GrpcSender, HttpSender

    if settings.otlp_protocol == "grpc":
        return GrpcSender(settings.otlp, settings.otlp_headers)
    return HttpSender(settings.otlp, settings.otlp_headers, json=settings.otlp_protocol == "http/json", clock=clock)


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
