"""Messages in: a reader on the server for each partition, which sends what it is asked for."""

# nats-py says only in part what its functions take.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from seamline.events.brokers.nats.link import TIMEOUT_S
from seamline.events.brokers.partitioned import Entry, decoded

if TYPE_CHECKING:
    from seamline.events.brokers.nats.log import NatsLog

PULL_S: Final = 30.0


class _Pull:
    """A partition's reader on the server, and what came from it."""

    def __init__(self, topic: str, consumer: str, after: int, news: asyncio.Event) -> None:
        self.consumer = consumer
        self.returned = after
        self.arrived: list[Entry] = []
        self.broken = False
        """To be made anew: the server has forgotten it, or a message was dropped."""
        self.subscription: Subscription | None = None
        self.inbox = ""
        self._topic = topic
        self._news = news
        self._taken = 0
        self._asked = 0
        """Messages that the server still may send."""

    async def listen(self, client: Client) -> None:
        self.inbox = client.new_inbox()
        self.subscription = await client.subscribe(self.inbox, cb=self._take)

    async def ask(self, client: Client, stream: str, limit: int) -> None:
        """For more, when all that was asked for has come and been read."""
        if self._asked > 0 or self.arrived:
            return
        self._asked = limit
        request = msgspec.json.encode({"batch": limit, "expires": int(PULL_S * 1e9)})
        await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{self.consumer}", request, self.inbox)

    def unanswered(self) -> None:
        self._asked = 0

    def take_all(self) -> list[Entry]:
        found, self.arrived = self.arrived, []
        if found:
            self.returned = int(found[-1].offset)
        return found

    async def _take(self, message: Msg) -> None:
        if not message.reply:
            # The server says why it sends no more: time is over (408, 404), or it has forgotten the reader.
            self._asked = 0
            self.broken = (message.headers or {}).get("Status", "") not in {"408", "404"}
        elif not self.broken:
            place, order = _sequence(message.reply)
            if order == self._taken + 1:
                self._taken = order
                self._asked -= 1
                self.arrived.append(decoded(self._topic, str(place), message.headers or {}, message.data))
            else:
                self.broken = True
        self._news.set()

    async def end(self, client: Client) -> None:
        if self.subscription is not None and client.is_connected:
            with contextlib.suppress(nats.errors.Error):
                await self.subscription.unsubscribe()


class NatsReader:
    """See :class:`seamline.events.brokers.partitioned.Reader`."""

    def __init__(self, log: NatsLog, topic: str) -> None:
        self._log = log
        self._topic = topic
        self._client: Client | None = None
        self._pulls: dict[int, _Pull] = {}
        self._news = asyncio.Event()
        log.link.watchers.add(self._news)

    async def read(self, after: Mapping[int, str], limit: int, *, wait: bool) -> Sequence[tuple[int, Entry]]:
        async with self._log.link.reachable():
            while True:
                client = await self._log.link.client()
                if client is not self._client:
                    self._client = client
                    self._pulls.clear()
                self._news.clear()
                for number, offset in after.items():
                    pull = await self._pull(client, number, offset)
                    await pull.ask(client, self._log.stream(self._topic), limit)
                found = [(number, entry) for number in after for entry in self._pulls[number].take_all()]
                if found or not wait:
                    return found
                try:
                    async with asyncio.timeout(PULL_S + TIMEOUT_S):
                        await self._news.wait()
                except TimeoutError:
                    for pull in self._pulls.values():
                        pull.unanswered()

    async def _pull(self, client: Client, number: int, offset: str) -> _Pull:
        pull = self._pulls.get(number)
        if pull is not None and pull.returned == int(offset) and (pull.arrived or not pull.broken):
            return pull
        info = await self._log.consumer(self._topic, number, offset)
        if pull is not None:
            await pull.end(client)
        made = _Pull(self._topic, info.name, int(offset), self._news)
        await made.listen(client)
        self._pulls[number] = made
        return made

    async def close(self) -> None:
        self._log.link.watchers.discard(self._news)
        if self._client is None or not self._client.is_connected:
            return
        stream = self._client.jetstream(timeout=TIMEOUT_S)
        for pull in self._pulls.values():
            await pull.end(self._client)
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                await stream.delete_consumer(self._log.stream(self._topic), pull.consumer)


def _sequence(reply: str) -> tuple[int, int]:
    """Of ``$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>``, or longer forms."""
    tokens = reply.split(".")
    first = 5 if len(tokens) == 9 else 7
    return int(tokens[first]), int(tokens[first + 1])
