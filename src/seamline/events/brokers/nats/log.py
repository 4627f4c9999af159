"""A stream for each topic with a subject for each partition, and a key-value bucket for places."""

# nats-py says only in part what its functions take.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from typing import Any, Final

import nats.errors
from nats.js import JetStreamContext, api
from nats.js import errors as js_errors
from nats.js.kv import KeyValue

from seamline.events import cloudevents
from seamline.events.brokers import urls
from seamline.events.brokers.nats.link import TIMEOUT_S, NatsLink
from seamline.events.brokers.nats.reading import NatsReader
from seamline.events.brokers.nats.writing import ID, Message, Refusal, Writer, chunk
from seamline.events.brokers.partitioned import ORDER, REDELIVERY, REPLAY, Behind, Entry, decoded
from seamline.events.errors import BrokerError, EventTooLargeError
from seamline.events.record import Record
from seamline.events.transport import Promises
from seamline.kernel.settings import EventsSettings
from seamline.kernel.signal import log
from seamline.module.module import Start

_log = log.get(__name__)

DUPLICATES_S: Final = 120
"""For so long the server knows the ids of messages, and stores none twice."""
INACTIVE_S: Final = 300.0
"""The server forgets a reader that has not asked for so long; it is made anew where it was."""
_HEADERS_ROOM: Final = 64
_WRONG_LAST: Final = frozenset((10070, 10071, 10164))


def durability(version: tuple[int, int, int], replicas: int) -> tuple[str, str]:
    """What an acknowledgement of such a server is worth, and how it would be worth more."""
    several = f" on {replicas} servers (a majority)" if replicas > 1 else ""
    lost = "power loss may lose what was acknowledged in between"
    if version < (2, 10, 0):
        number = ".".join(map(str, version))
        fact = f"written{several}; NATS {number} fsyncs every 2 minutes and has no setting for it: {lost}"
        return fact, "upgrade to 2.10 or newer, and set `sync_interval: always` in its jetstream block"
    fact = (
        f"written{several}; fsynced when the server's sync_interval comes round (2 minutes unless it is set, and not "
        f"readable from here): {lost}"
    )
    return fact, "set `sync_interval: always` in its jetstream block"


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
        said, remedy = durability((version.major, version.minor, version.patch), self.link.replicas)
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
            writer = Writer(client)
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

    def _message(self, topic: str, partition: int, record: Record, bytes_max: int) -> Message:
        headers = cloudevents.to_headers(record, self._app)
        headers[ID] = urls.quoted(record.id)
        size = len(record.data) + sum(len(name) + len(value) + 4 for name, value in headers.items()) + _HEADERS_ROOM
        if size > bytes_max:
            raise EventTooLargeError(
                f"the event {record.type} {record.id} has {size} bytes; NATS at {self.link.shown} takes {bytes_max}",
                "Raise the server's max_payload, or put what is large elsewhere and its name in the event.",
            )
        return Message(self.subject(topic, partition), headers, record.data)

    async def _append(self, topic: str, messages: Sequence[Message], writer: Writer) -> None:
        done = 0
        while done < len(messages):
            last = self._last.get(topic)
            # Without a last one, one by one until one is new: what an earlier attempt stored is not stored again.
            batch = messages[done : done + 1] if last is None else chunk(messages, done)
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

    def _refusal(self, error: Refusal) -> BrokerError:
        return BrokerError(
            f"NATS at {self.link.shown} did not store an event: {error.description} ({error.err_code})",
            "Give the account and its disk room, as it says; it is tried again by itself.",
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
                *(self._place(bucket, self._key(topic, group, number)) for number in range(self._partitions + 1))
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

    async def pick(self, topic: str, _partition: int, offsets: Sequence[str]) -> Sequence[Entry]:
        async with self.link.reachable():
            stream = await self._have_stream(topic)
            found = await asyncio.gather(*(self._single(stream, topic, offset) for offset in offsets))
        return [entry for entry in found if entry is not None]

    async def _single(self, stream: JetStreamContext, topic: str, offset: str) -> Entry | None:
        try:
            found = await stream.get_msg(self.stream(topic), int(offset), direct=True)
        except js_errors.NotFoundError:
            return None
        return decoded(topic, offset, _headers(found), found.data or b"")

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
        return Behind(info.num_pending, decoded(topic, after, _headers(first), b"").record.time_ms)

    def reader(self, topic: str) -> NatsReader:
        return NatsReader(self, topic)


def _safe(name: str) -> str:
    """A name as a token of subjects and streams."""
    return re.sub(r"[^A-Za-z0-9_-]", lambda found: "".join(f"={byte:02X}" for byte in found[0].encode()), name)


def _headers(message: Any) -> dict[str, str]:
    return message.headers or {}
