"""Messages out. Each says which one it follows, by its id, so that none is stored without the one before it."""

# nats-py says only in part what its functions take.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from seamline.events.brokers.nats.link import TIMEOUT_S

APPEND_MAX: Final = 512
"""Messages on their way at once, not acknowledged yet."""
APPEND_BYTES: Final = 4 * 1024 * 1024
ID: Final = "Nats-Msg-Id"


class Refusal(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class Acknowledgement(msgspec.Struct):
    duplicate: bool = False
    error: Refusal | None = None


_DECODE = msgspec.json.Decoder(Acknowledgement).decode


class Message(msgspec.Struct):
    subject: str
    headers: dict[str, str]
    data: bytes

    @property
    def id(self) -> str:
        return self.headers[ID]


def chunk(messages: Sequence[Message], begin: int) -> Sequence[Message]:
    size = 0
    for end in range(begin, min(begin + APPEND_MAX, len(messages))):
        size += len(messages[end].data)
        if size > APPEND_BYTES:
            return messages[begin : end + 1]
    return messages[begin : begin + APPEND_MAX]


class Writer:
    """Sends messages without waiting for each; their acknowledgements come to an inbox."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._subscription: Subscription | None = None
        self._answers: dict[int, Acknowledgement] = {}
        self._missing = 0
        self._whole = asyncio.Event()

    async def open(self) -> None:
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._answered)

    async def close(self) -> None:
        if self._subscription is not None and self._client.is_connected:
            with contextlib.suppress(nats.errors.Error):
                await self._subscription.unsubscribe()

    async def send(self, messages: Sequence[Message], last: str | None) -> list[Acknowledgement]:
        """Publish, the first only if ``last`` is the topic's last message, each other only if the one before it is."""
        self._answers.clear()
        self._whole.clear()
        self._missing = len(messages)
        for number, message in enumerate(messages):
            headers = message.headers
            if last is not None:
                headers = headers | {"Nats-Expected-Last-Msg-Id": last}
                last = message.id
            await self._client.publish(message.subject, message.data, f"{self._inbox}.{number}", headers)
        async with asyncio.timeout(TIMEOUT_S):
            while self._missing:
                if not self._client.is_connected:
                    raise nats.errors.ConnectionClosedError
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):  # to see a lost connection
                        await self._whole.wait()
        return [self._answers[number] for number in range(len(messages))]

    async def _answered(self, message: Msg) -> None:
        if not message.data and message.headers and message.headers.get("Status") == "503":
            answer = Acknowledgement(error=Refusal(503, 503, "no stream takes it"))
        else:
            answer = _DECODE(message.data)
        self._answers[int(message.subject.rpartition(".")[2])] = answer
        self._missing -= 1
        if self._missing <= 0:
            self._whole.set()
