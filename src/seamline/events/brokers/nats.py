"""NATS JetStream: a stream for each topic with a subject for each partition, and a key-value bucket for places.

The connection does not heal by itself: nats-py would send later messages of a batch after a reconnection whose earlier
ones were lost. We connect anew, and what was not acknowledged is published again from there. Each message says which
one it follows, so that none is stored without the one before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext, api
from nats.js import errors as js_errors
from nats.js.kv import KeyValue

from seamline.events import cloudevents
from seamline.events.brokers import urls
from seamline.events.brokers.partitioned import ORDER, REDELIVERY, REPLAY, Behind, Entry, decoded
from seamline.events.errors import BrokerError, BrokerUrlError, EventTooLargeError
from seamline.events.record import Record
from seamline.events.transport import Promises
from seamline.kernel.settings import EventsSettings
from seamline.kernel.signal import log
from seamline.module.module import Start

_log = log.get(__name__)

TIMEOUT_S: Final = 5
APPEND_MAX: Final = 512
"""Messages on their way at once, not acknowledged yet."""
APPEND_BYTES: Final = 4 * 1024 * 1024
DUPLICATES_S: Final = 120
"""For so long the server knows the ids of messages, and stores none twice."""
PULL_S: Final = 30.0
INACTIVE_S: Final = 300.0
"""The server forgets a reader that has not asked for so long; it is made anew where it was."""
_HEADERS_ROOM: Final = 64
_ID: Final = "Nats-Msg-Id"
_WRONG_LAST: Final = frozenset((10070, 10071, 10164))


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Acknowledgement(msgspec.Struct):
    duplicate: bool = False
    error: _Error | None = None


_DECODE = msgspec.json.Decoder(_Acknowledgement).decode


class NatsLink:
    """One connection to the server, made anew when it is lost."""

    def __init__(self, url: str, app: str) -> None:
        parts = urls.split(url)
        self.shown = urls.shown(url)
        self.server = url.partition("?")[0]
        self.replicas = _replicas(parts.query)
        self._app = app
        self._client: Client | None = None
        self._making = asyncio.Lock()
        self._refusal = ""
        self.watchers: set[asyncio.Event] = set()
        """Set when the connection is lost."""

    @asynccontextmanager
    async def reachable(self) -> AsyncGenerator[None]:
        """Name the server when it does not answer, or refuses."""
        try:
            yield
        except (nats.errors.AuthorizationError, nats.errors.InvalidUserCredentialsError) as error:
            raise self._refused(str(error)) from error
        except (js_errors.ServiceUnavailableError, nats.errors.NoRespondersError) as error:
            raise BrokerError(
                f"NATS at {self.shown} has no JetStream for us now ({error})",
                "Start nats-server with -js (or a jetstream block); after its start or in an election, it is tried again",
            ) from error
        except js_errors.APIError as error:
            raise BrokerError(
                f"NATS at {self.shown} refuses: {error.description} ({error.err_code})",
                "Give the account streams and room on disk, as it says",
            ) from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            if "authorization" in self._refusal.lower():
                raise self._refused(self._refusal) from error
            raise BrokerError(
                f"NATS at {self.shown} does not answer ({self._refusal or error or type(error).__name__})",
                "Check [events] broker and that the server is running; it is tried again by itself",
            ) from error

    def _refused(self, said: str) -> BrokerError:
        return BrokerError(
            f"NATS at {self.shown} refuses us: {said}", "Check user, password or token in [events] broker"
        )

    async def client(self) -> Client:
        """The connection; called inside of :meth:`reachable`."""
        found = self._client
        if found is not None and found.is_connected:
            return found
        async with self._making:
            if self._client is None or not self._client.is_connected:
                await self._forget()
                self._refusal = ""
                self._client = await self._connected()
            return self._client

    async def _connected(self) -> Client:
        client = Client()
        try:
            async with asyncio.timeout(2 * TIMEOUT_S):
                await client.connect(
                    self.server,
                    name=f"seamline {self._app}",
                    allow_reconnect=False,
                    max_reconnect_attempts=1,  # of each server, for the first connection
                    reconnect_time_wait=0,
                    connect_timeout=TIMEOUT_S,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    error_cb=self._noted,
                    closed_cb=self._lost,
                    disconnected_cb=self._lost,
                )
        except BaseException:
            with contextlib.suppress(nats.errors.Error, OSError):
                await client.close()
            raise
        return client

    async def stream(self) -> JetStreamContext:
        return (await self.client()).jetstream(timeout=TIMEOUT_S)

    async def _noted(self, error: Exception) -> None:
        self._refusal = str(error)
        _log.debug("NATS at %s: %s", self.shown, error)

    async def _lost(self) -> None:
        for watcher in self.watchers:
            watcher.set()

    async def _forget(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(nats.errors.Error, OSError):
                await client.close()

    async def close(self) -> None:
        await self._forget()


class NatsLog:
    """See :class:`seamline.events.brokers.partitioned.PartitionedLog`."""

    def __init__(self, url: str, *, app: str, settings: EventsSettings) -> None:
        self.link = NatsLink(url, app)
        self._app = app
        self._settings = settings
        self._partitions = settings.partitions
        self._streams: set[str] = set()
        self._last: dict[str, str] = {}
        """Per topic: the id of its last message, while nobody else writes."""
        self._bucket: KeyValue | None = None
        self._revisions: dict[str, int] = {}

    # Connecting

    async def connect(self) -> Promises:
        async with self.link.reachable():
            client = await self.link.client()
            await client.jetstream(timeout=TIMEOUT_S).account_info()
        version = client.connected_server_version
        configurable = (version.major, version.minor) >= (2, 10)
        remedy = (
            "set `sync: always` in its jetstream block"
            if configurable
            else "NATS before 2.10 has no setting for it: upgrade and set `sync: always`"
        )
        several = f" on {self.link.replicas} servers (a majority)" if self.link.replicas > 1 else ""
        said = (
            f"written{several}; fsynced when the server's sync_interval comes round (2 minutes unless it is set, and not "
            "readable from here): power loss may lose what was acknowledged in between"
        )
        level = logging.INFO if self._settings.durability == "relaxed" else logging.WARNING
        _log.log(level, "NATS at %s: a published event is %s; %s", self.link.shown, said, remedy)
        return Promises(
            name="NATS JetStream",
            durable_when=f"{said}; {remedy}",
            order=ORDER,
            redelivery=REDELIVERY,
            replay=REPLAY,
            limits=f"an event has at most {client.max_payload} bytes, headers included",
        )

    async def close(self) -> None:
        await self.link.close()

    def stream(self, topic: str) -> str:
        return f"{_safe(self._app)}_{_safe(topic)}"

    def subject(self, topic: str, partition: int) -> str:
        return f"{_safe(self._app)}.{_safe(topic)}.{partition}"

    async def _have_stream(self, topic: str) -> JetStreamContext:
        stream = await self.link.stream()
        if topic in self._streams:
            return stream
        config = api.StreamConfig(
            name=self.stream(topic),
            subjects=[f"{_safe(self._app)}.{_safe(topic)}.*"],
            storage=api.StorageType.FILE,
            max_age=self._settings.retention_s,
            max_bytes=self._settings.retention_bytes or -1,
            duplicate_window=min(DUPLICATES_S, self._settings.retention_s or DUPLICATES_S),
            num_replicas=self.link.replicas,
            allow_direct=True,
        )
        try:
            await stream.add_stream(config)
        except js_errors.BadRequestError:  # it exists, made with other settings
            await stream.update_stream(config)
        self._streams.add(topic)
        return stream

    async def _places(self) -> KeyValue:
        if self._bucket is None:
            stream = await self.link.stream()
            config = api.KeyValueConfig(
                bucket=f"{_safe(self._app)}_places",
                history=1,
                storage=api.StorageType.FILE,
                replicas=self.link.replicas,
            )
            try:
                self._bucket = await stream.key_value(config.bucket)
            except js_errors.NotFoundError:
                self._bucket = await stream.create_key_value(config)
        # The bucket was opened on a connection that may be gone.
        self._bucket._js = await self.link.stream()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return self._bucket

    # Writing

    async def append(self, topic: str, records: Sequence[tuple[int, Record]]) -> None:
        async with self.link.reachable():
            client = await self.link.client()
            await self._have_stream(topic)
            messages = [self._message(topic, partition, record, client.max_payload) for partition, record in records]
            writer = _Writer(client)
            await writer.open()
            try:
                await self._append(topic, messages, writer)
            except BaseException as error:
                # What was stored is not known: the next message says nothing of the one before.
                self._last.pop(topic, None)
                if isinstance(error, nats.errors.NoRespondersError):
                    self._streams.discard(topic)
                raise
            finally:
                await writer.close()

    def _message(self, topic: str, partition: int, record: Record, bytes_max: int) -> _Message:
        headers = cloudevents.to_headers(record, self._app)
        headers[_ID] = urls.quoted(record.id)
        size = len(record.data) + sum(len(name) + len(value) + 4 for name, value in headers.items()) + _HEADERS_ROOM
        if size > bytes_max:
            raise EventTooLargeError(
                f"the event {record.type} {record.id} has {size} bytes, and NATS at {self.link.shown} takes {bytes_max}",
                "Raise max_payload in the server's configuration, or put what is large elsewhere and its name in the event",
            )
        return _Message(self.subject(topic, partition), headers, record.data)

    async def _append(self, topic: str, messages: Sequence[_Message], writer: _Writer) -> None:
        done = 0
        while done < len(messages):
            last = self._last.get(topic)
            # Without a last one, one by one until one is new: what an earlier attempt stored is not stored again.
            batch = messages[done : done + 1] if last is None else _chunk(messages, done)
            for message, answer in zip(batch, await writer.send(batch, last), strict=True):
                if answer.error is not None and answer.error.err_code not in _WRONG_LAST:
                    raise self._refusal(answer.error)
                if answer.error is not None or answer.duplicate:
                    self._last.pop(topic, None)  # it was there, or somebody else has written
                else:
                    self._last[topic] = message.id
                if answer.error is not None:
                    break
                done += 1

    def _refusal(self, error: _Error) -> BrokerError:
        return BrokerError(
            f"NATS at {self.link.shown} did not store an event: {error.description} ({error.err_code})",
            "Give the account and its disk room, as it says; it is tried again by itself",
        )

    # Where groups are

    async def resolve(self, topic: str, start: Start) -> Mapping[int, str]:
        async with self.link.reachable():
            stream = await self._have_stream(topic)
            if start == "earliest":
                after = 0
            elif start == "latest":
                after = (await stream.stream_info(self.stream(topic))).state.last_seq
            elif isinstance(start, int):
                after = max(0, start - 1)
            else:
                info = await stream.add_consumer(
                    self.stream(topic),
                    self._consumer(
                        deliver_policy=api.DeliverPolicy.BY_START_TIME, opt_start_time=start.astimezone(UTC)
                    ),
                )
                assert info.delivered is not None
                after = info.delivered.stream_seq
                await stream.delete_consumer(self.stream(topic), info.name)
        return dict.fromkeys(range(self._partitions), str(after))

    @staticmethod
    def _consumer(**options: Any) -> api.ConsumerConfig:
        usual: dict[str, Any] = {
            "ack_policy": api.AckPolicy.NONE,
            "inactive_threshold": INACTIVE_S,
            "mem_storage": True,
            "num_replicas": 1,
        }
        return api.ConsumerConfig(**(usual | options))

    async def consumer(self, topic: str, partition: int, after: str) -> api.ConsumerInfo:
        """A reader on the server, which goes on after ``after``."""
        stream = await self._have_stream(topic)
        return await stream.add_consumer(
            self.stream(topic),
            self._consumer(
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=int(after) + 1,
                filter_subject=self.subject(topic, partition),
            ),
        )

    def _key(self, topic: str, group: str, partition: int) -> str:
        return f"{_safe(topic)}.{_safe(group)}.{partition}"

    async def begin(self, topic: str, group: str, places: Mapping[int, bytes], *, over: bool) -> None:
        async with self.link.reachable():
            bucket = await self._places()
            for number, place in places.items():
                key = self._key(topic, group, number)
                if over:
                    await bucket.put(key, place)
                else:
                    with contextlib.suppress(js_errors.KeyWrongLastSequenceError):
                        await bucket.create(key, place)

    async def places(self, topic: str, group: str) -> Mapping[int, bytes]:
        async with self.link.reachable():
            bucket = await self._places()
            found = await asyncio.gather(
                *(self._place(bucket, self._key(topic, group, number)) for number in range(self._partitions))
            )
        return {number: entry.value for number, entry in enumerate(found) if entry is not None and entry.value}

    async def _place(self, bucket: KeyValue, key: str) -> KeyValue.Entry | None:
        try:
            return await bucket.get(key)
        except js_errors.KeyNotFoundError:
            return None

    async def claim(self, topic: str, group: str, partitions: Iterable[int], holder: str) -> Mapping[int, bytes]:
        claimed: dict[int, bytes] = {}
        async with self.link.reachable():
            bucket = await self._places()
            for number in partitions:
                key = self._key(topic, group, number)
                while (entry := await self._place(bucket, key)) is not None and entry.value:
                    # Its revision becomes ours, so that whoever wrote it before can write no more.
                    with contextlib.suppress(js_errors.KeyWrongLastSequenceError):
                        self._revisions[holder + key] = await bucket.update(key, entry.value, entry.revision)
                        claimed[number] = entry.value
                        break
        return claimed

    async def save(self, topic: str, group: str, holder: str, places: Mapping[int, bytes]) -> Iterable[int]:
        async with self.link.reachable():
            bucket = await self._places()
            outcomes = await asyncio.gather(
                *(self._save(bucket, holder, self._key(topic, group, n), place) for n, place in places.items()),
                return_exceptions=True,
            )
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
        return [number for number, kept in zip(places, outcomes, strict=True) if not kept]

    async def _save(self, bucket: KeyValue, holder: str, key: str, place: bytes) -> bool:
        revision = self._revisions.pop(holder + key, None)
        if revision is None:  # the answer to an earlier save was lost: whether it is still ours is not known
            return False
        try:
            self._revisions[holder + key] = await bucket.update(key, place, revision)
        except js_errors.KeyWrongLastSequenceError:
            return False
        return True

    # Reading

    async def pick(self, topic: str, partition: int, offsets: Sequence[str]) -> Sequence[Entry]:
        async with self.link.reachable():
            stream = await self._have_stream(topic)
            found = await asyncio.gather(*(self._single(stream, topic, offset) for offset in offsets))
        return [entry for entry in found if entry is not None]

    async def _single(self, stream: JetStreamContext, topic: str, offset: str) -> Entry | None:
        try:
            found = await stream.get_msg(self.stream(topic), int(offset), direct=True)
        except js_errors.NotFoundError:
            return None
        return decoded(topic, offset, found.headers or {}, found.data or b"")

    async def behind(self, topic: str, after: Mapping[int, str]) -> Mapping[int, Behind]:
        async with self.link.reachable():
            stream = await self._have_stream(topic)
            return {number: await self._behind(stream, topic, number, offset) for number, offset in after.items()}

    async def _behind(self, stream: JetStreamContext, topic: str, partition: int, after: str) -> Behind:
        info = await self.consumer(topic, partition, after)
        await stream.delete_consumer(self.stream(topic), info.name)
        if not info.num_pending:
            return Behind(0, 0)
        first = await stream.get_msg(
            self.stream(topic), int(after) + 1, subject=self.subject(topic, partition), direct=True, next=True
        )
        return Behind(info.num_pending, decoded(topic, after, first.headers or {}, b"").record.time_ms)

    def reader(self, topic: str) -> NatsReader:
        return NatsReader(self, topic)


class _Message(msgspec.Struct):
    subject: str
    headers: dict[str, str]
    data: bytes

    @property
    def id(self) -> str:
        return self.headers[_ID]


def _chunk(messages: Sequence[_Message], begin: int) -> Sequence[_Message]:
    size = 0
    for end in range(begin, min(begin + APPEND_MAX, len(messages))):
        size += len(messages[end].data)
        if size > APPEND_BYTES:
            return messages[begin : end + 1]
    return messages[begin : begin + APPEND_MAX]


class _Writer:
    """Sends messages without waiting for each; their acknowledgements come to an inbox."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._subscription: Subscription | None = None
        self._answers: dict[int, _Acknowledgement] = {}
        self._missing = 0
        self._whole = asyncio.Event()

    async def open(self) -> None:
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._answered)

    async def close(self) -> None:
        if self._subscription is not None and self._client.is_connected:
            with contextlib.suppress(nats.errors.Error):
                await self._subscription.unsubscribe()

    async def send(self, messages: Sequence[_Message], last: str | None) -> list[_Acknowledgement]:
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
            answer = _Acknowledgement(error=_Error(503, 503, "no stream takes it"))
        else:
            answer = _DECODE(message.data)
        self._answers[int(message.subject.rpartition(".")[2])] = answer
        self._missing -= 1
        if self._missing <= 0:
            self._whole.set()


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


def _replicas(query: str) -> int:
    found = re.fullmatch(r"(?:replicas=([1-5]))?", query)
    if found is None:
        raise BrokerUrlError(
            f"the url of [events] broker ends in {query!r}", 'Only "?replicas=3" (1 to 5) may stand there'
        )
    return int(found[1] or 1)


def _safe(name: str) -> str:
    """A name as a token of subjects and streams."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda found: "".join(f"={byte:02X}" for byte in found[0].encode()), name)
