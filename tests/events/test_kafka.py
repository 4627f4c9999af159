"""Kafka as the way between modules: groups that lose nothing, a producer that keeps its order, the cluster's faults.

Where ``KAFKA_BOOTSTRAP_SERVERS`` is set, what needs no planted fault runs against that cluster; each test's name says
which it was. What the mock cannot do is told in ``kafka_mock``.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from inspect import isawaitable
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from tests.events.kafka_mock import OFFSET_COMMIT, PRODUCE, KafkaMock, KafkaServer, open_kafka, real_servers

from seamline.events.brokers.kafka import KafkaTransport, producer, seeking, subscription, transport
from seamline.events.brokers.kafka.address import KafkaAddress
from seamline.events.brokers.kafka.cluster import Cluster
from seamline.events.brokers.kafka.subscription import KafkaSubscription
from seamline.events.errors import BrokerError, BrokerUrlError, EventTooLargeError, UnknownGroupError
from seamline.events.record import Record, partition_of
from seamline.events.transport import Delivery
from seamline.kernel.clock import Clock, ManualClock, SystemClock
from seamline.kernel.settings import EventsSettings
from seamline.module.module import Start

PARTITIONS = 8
PLACED = frozenset({"Placed"})
PATIENCE_S = 40.0

Kafka = KafkaMock | KafkaServer
needs_real = pytest.mark.skipif(not real_servers(), reason="the mock finds no offsets by time: needs a real Kafka")


@pytest.fixture(scope="module", params=["kafka" if real_servers() else "kafka-mock"])
def shared() -> Generator[Kafka]:
    kafka = open_kafka()
    yield kafka
    kafka.close()


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "seamline.events.brokers.kafka")


@pytest.fixture
def mock() -> Generator[KafkaMock]:
    """A cluster of a test's own, to be broken."""
    kafka = KafkaMock()
    yield kafka
    kafka.close()


@pytest.fixture
def app(shared: Kafka) -> str:
    """An application that nobody had before."""
    name = f"shop{uuid4().hex[:8]}"
    shared.prepare(name, "orders", PARTITIONS)
    return name


@asynccontextmanager
async def member(
    kafka: Kafka, app: str, clock: Clock | None = None, options: str = ""
) -> AsyncGenerator[KafkaTransport]:
    """A transport as one process has it."""
    settings = EventsSettings(partitions=PARTITIONS)
    opened = KafkaTransport(kafka.url() + options, app, settings, clock or SystemClock())
    await opened.start()
    try:
        yield opened
    finally:
        await opened.close()


def placed(number: int, *, key: str = "", type_: str = "Placed", due_ms: int = 0, expires_ms: int = 0) -> Record:
    return Record(
        id=f"e{number}",
        source="orders",
        type=type_,
        data=b'{"number":%d}' % number,
        time_ms=1_700_000_000_000 + number,
        key=key or f"k{number % 5}",
        due_ms=due_ms,
        expires_ms=expires_ms,
    )


async def join(member: KafkaTransport, start: Start = "earliest", group: str = "stock.reserve") -> KafkaSubscription:
    return await member.subscribe("orders", group, PLACED, start)


async def take(subscribed: KafkaSubscription, count: int) -> list[Delivery]:
    """So many deliveries, in however many fetches they come; that brokers were away is told once and passes."""
    found: list[Delivery] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            with suppress(BrokerError):
                found += await subscribed.fetch(count - len(found), 1.0)
    return found


async def drain(subscribed: KafkaSubscription, last: str) -> list[Delivery]:
    """All deliveries up to the one with the id ``last``."""
    found: list[Delivery] = []
    async with asyncio.timeout(PATIENCE_S):
        while not found or found[-1].record.id != last:
            found += await subscribed.fetch(1, 1.0)
    return found


async def eventually(ask: Callable[[], Any], holds: Callable[[Any], bool]) -> None:
    """Ask again until it holds; what is asked may be awaitable."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = ask()
            if holds(await found if isawaitable(found) else found):
                return
            await asyncio.sleep(0.02)


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return sorted(delivery.record.id for delivery in deliveries)


def firsts(deliveries: Sequence[Delivery], key: str) -> list[int]:
    """The numbers of a key's events in the order in which each came first."""
    seen: dict[int, None] = {}
    for delivery in deliveries:
        if delivery.record.key == key:
            seen.setdefault(int(delivery.record.id[1:]))
    return list(seen)


async def test_record_arrives_as_it_was_sent(shared: Kafka, app: str) -> None:
    """Every field of a record survives Kafka, text beyond ASCII included."""
    sent = Record(
        id="a%b/ü",
        source="orders",
        type="Placed",
        data='{"name":"Žofia"}'.encode(),
        time_ms=1_700_000_000_123,
        key="schlüssel 7%",
        version=3,
        trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        due_ms=1_700_000_001_000,
        expires_ms=4_000_000_000_000,
        headers={"tenant": "größe"},
    )
    async with member(shared, app) as one:
        await one.publish("orders", [sent])
        subscribed = await join(one)
        (arrived,) = await take(subscribed, 1)
        assert arrived.record == sent
        assert (arrived.topic, arrived.partition) == ("orders", partition_of(sent, PARTITIONS))


async def test_keys_keep_order_in_their_partition(shared: Kafka, app: str) -> None:
    """A key's events are in the partition that partition_of names, and come in the order of their publishing."""
    async with member(shared, app) as one:
        records = [placed(number) for number in range(1000)]
        for begin in range(0, 1000, 100):
            await one.publish("orders", records[begin : begin + 100])
        found = await take(await join(one), 1000)
        for key in ("k0", "k1", "k2", "k3", "k4"):
            assert firsts(found, key) == [number for number in range(1000) if f"k{number % 5}" == key]
        assert all(delivery.partition == partition_of(delivery.record, PARTITIONS) for delivery in found)


async def test_what_was_not_acknowledged_comes_again(shared: Kafka, app: str) -> None:
    """Acknowledged in any order, only the rest is handed out again: the oldest open record does not drag the others."""
    async with member(shared, app) as one:
        await one.publish("orders", [placed(number, key="one") for number in range(20)])
        subscribed = await join(one)
        found = await take(subscribed, 20)
        await subscribed.acknowledge([found[number] for number in (19, 3, 11, 2, 0)])
        await subscribed.close()
        again = await join(one)
        rest = await take(again, 15)
        assert firsts(rest, "one") == [n for n in range(20) if n not in {19, 3, 11, 2, 0}]
        assert not await again.fetch(10, 0.2)


async def test_crash_hands_out_again_what_was_not_committed(mock: KafkaMock) -> None:
    """Records are committed up to the oldest open one and no further, whatever was acknowledged after it."""
    mock.topic("shop.orders", PARTITIONS)
    async with member(mock, "shop") as one:
        await one.publish("orders", [placed(number, key="one") for number in range(10)])
        subscribed = await join(one)
        found = await take(subscribed, 10)
        await subscribed.acknowledge(found[:4])
        await subscribed.acknowledge(found[5:])
        await subscribed.close()
        offsets = one._cluster.committed("shop.stock.reserve", "shop.orders", [found[0].partition])
        assert offsets == {found[0].partition: int(found[4].offset)}


async def test_second_member_takes_over_a_share(shared: Kafka, app: str) -> None:
    """While events flow, a member joins and one leaves: every event is handled, and nothing stays behind."""
    async with member(shared, app) as one, member(shared, app) as two:
        first = await join(one)
        handled: set[str] = set()
        both: set[str] = set()
        stop = asyncio.Event()

        async def work(subscribed: KafkaSubscription, into: set[str]) -> None:
            while not stop.is_set():
                found = await subscribed.fetch(7, 0.1)
                await asyncio.sleep(0)
                await subscribed.acknowledge(found)
                handled.update(ids(found))
                into.update(ids(found))

        async def publish(begin: int, end: int) -> None:
            for number in range(begin, end, 10):
                await one.publish("orders", [placed(n, key=f"key{n % 40}") for n in range(number, number + 10)])

        async def until(done: int) -> None:
            await eventually(lambda: len(handled), lambda found: found >= done)

        async with asyncio.TaskGroup() as group:
            group.create_task(work(first, set()))
            await publish(0, 500)
            second = await join(two)
            working = group.create_task(work(second, both))
            async with asyncio.timeout(PATIENCE_S):
                number = 500
                while not both:  # until the second has a share and works on it
                    await publish(number, number + 10)
                    number += 10
            await publish(number, number + 300)
            await until(number + 300)
            working.cancel()
            await second.close()
            await publish(number + 300, number + 600)
            await until(number + 600)
            stop.set()
        assert handled == {f"e{n}" for n in range(number + 600)}


async def test_lost_partition_is_not_committed(shared: Kafka, app: str) -> None:
    """What a member acknowledges after its partition went to another is that other's to decide."""
    async with member(shared, app) as one, member(shared, app) as two:
        await one.publish("orders", [placed(number, key=f"key{number}") for number in range(200)])
        first = await join(one)
        found = await take(first, 200)
        second = await join(two)
        taken = await take(second, 1)
        partition = taken[0].partition
        before = await asyncio.to_thread(one._cluster.committed, f"{app}.stock.reserve", f"{app}.orders", [partition])
        await first.acknowledge([delivery for delivery in found if delivery.partition == partition])
        await first.close()
        after = await asyncio.to_thread(two._cluster.committed, f"{app}.stock.reserve", f"{app}.orders", [partition])
        assert before == after
        await second.close()
        third = await join(two)
        assert ids(await take(third, 200)) == ids(found) or real_servers()


async def test_new_group_begins_with_what_comes(shared: Kafka, app: str) -> None:
    """A group that starts at the latest event keeps that beginning, also when it was closed before anything came."""
    async with member(shared, app) as one:
        await one.publish("orders", [placed(number) for number in range(50)])
        await (await join(one, "latest")).close()
        await one.publish("orders", [placed(50), placed(51)])
        assert ids(await take(await join(one, "latest"), 2)) == ["e50", "e51"]


async def test_new_group_begins_at_an_offset(shared: Kafka, app: str) -> None:
    """An offset is the same number in each partition; one beyond the end is the end."""
    async with member(shared, app) as one:
        await one.publish("orders", [placed(number, key="one") for number in range(20)])
        found = await take(await join(one, 15), 5)
        assert firsts(found, "one") == [15, 16, 17, 18, 19]
        beyond = await join(one, 1_000, "stock.late")
        await one.publish("orders", [placed(20, key="one")])
        assert ids(await take(beyond, 1)) == ["e20"]


@needs_real
async def test_new_group_begins_at_a_time(shared: Kafka, app: str) -> None:
    """A time is that of the events' publishing."""
    async with member(shared, app) as one:
        await one.publish("orders", [placed(number) for number in range(20)])
        begin = datetime.fromtimestamp(1_700_000_000, UTC) + timedelta(milliseconds=15)
        assert ids(await take(await join(one, begin), 5)) == ["e15", "e16", "e17", "e18", "e19"]


async def test_group_is_replayed(shared: Kafka, app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that handled everything is moved to the beginning and has it again; not while somebody is in it."""
    async with member(shared, app) as one, member(shared, app) as two:
        await one.publish("orders", [placed(number) for number in range(30)])
        subscribed = await join(one)
        found = await take(subscribed, 30)
        await subscribed.acknowledge(found[:-1])
        with monkeypatch.context() as patch:
            patch.setattr(seeking, "_ALONE_S", 3.0)
            with pytest.raises(BrokerError, match="has other members"):
                await two.seek("orders", "stock.reserve", "earliest")
        await subscribed.close()
        with pytest.raises(UnknownGroupError, match=r"stock\.misspelt"):
            await one.seek("orders", "stock.misspelt", "earliest")
        await one.seek("orders", "stock.reserve", "earliest")
        again = await join(one)
        assert ids(await take(again, 30)) == ids(found)
        await again.close()
        await one.seek("orders", "stock.reserve", "latest")
        await one.publish("orders", [placed(30)])
        assert ids(await take(await join(one), 1)) == ["e30"]


async def test_lag_counts_what_is_not_acknowledged(shared: Kafka, app: str) -> None:
    """Fetched or not, here or with another member; its age is that of the oldest event."""
    clock = ManualClock(datetime.fromtimestamp(1_700_000_100, UTC))
    async with member(shared, app, clock) as one, member(shared, app, clock) as two:
        await one.publish("orders", [placed(number, key=f"key{number}") for number in range(60)])
        first, second = await join(one), await join(two)
        found = await take(first, 1)
        assert (await first.lag()).events == 60
        assert 99 < (await first.lag()).oldest_s <= 100
        await first.acknowledge(found)
        assert (await first.lag()).events == 59
        await take(second, 1)  # whichever of the two has a partition now, both count all of them
        await eventually(first.lag, lambda lag: lag.events == 59)
        await eventually(second.lag, lambda lag: lag.events == 59)


async def test_not_due_is_held_and_expired_is_dropped(shared: Kafka, app: str) -> None:
    """An event that is not due holds nothing else back, comes when its time has come, and only it comes again."""
    clock = ManualClock(datetime.fromtimestamp(1_700_000_000, UTC))
    later, soon = 1_700_000_060_000, 1_700_000_001_000
    async with member(shared, app, clock) as one:
        await one.publish(
            "orders",
            [
                placed(0, key="one", due_ms=later),
                placed(1, key="one", expires_ms=1_699_999_999_000),
                *[placed(number, key="one") for number in range(2, 10)],
                placed(10, key="one", due_ms=later, expires_ms=later - 1),
            ],
        )
        subscribed = await join(one)
        found = await drain(subscribed, "e9")
        assert firsts(found, "one") == list(range(2, 10))
        await subscribed.acknowledge(found)
        await subscribed.close()
        again = await join(one)
        await one.publish("orders", [placed(11, key="one"), placed(12, key="one", due_ms=soon)])
        assert ids(await drain(again, "e11")) == ["e11"]
        clock.advance(60)
        assert ids(await take(again, 2)) == ["e0", "e12"]
        assert not await again.fetch(10, 0.2)
        assert (await again.lag()).events == 3


async def test_other_types_and_foreign_messages_are_passed_over(
    shared: Kafka, app: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a group does not want is done at once; what is no CloudEvent is named in the log and holds nothing up."""
    async with member(shared, app) as one:
        await one.publish("orders", [placed(0, key="one", type_="Cancelled")])
        partition = partition_of(placed(0, key="one"), PARTITIONS)
        foreign = Producer({"bootstrap.servers": shared.servers})
        foreign.produce(f"{app}.orders", b"\xff garbage", partition=partition, headers=[("ce_id", b"\xff")])
        foreign.produce(f"{app}.orders", None, partition=partition)
        assert not foreign.flush(PATIENCE_S)
        await one.publish("orders", [placed(1, key="one")])
        subscribed = await join(one)
        found = await take(subscribed, 1)
        assert ids(found) == ["e1"]
        await subscribed.acknowledge(found)
        assert (await subscribed.lag()).events == 0
    assert f"{app}.orders [{partition}] 1 is passed over" in caplog.text


async def test_slow_consumer_is_not_flooded(shared: Kafka, app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody fetches: memory holds a bounded number of records, the member stays in its group, and nothing is lost."""
    monkeypatch.setattr(subscription, "_READY_MAX", 100)
    async with member(shared, app) as one:
        await one.publish("orders", [placed(number) for number in range(3000)])
        subscribed = await join(one)
        await eventually(subscribed._has_room, lambda room: not room)
        found = await take(subscribed, 50)
        await eventually(lambda: subscribed._paused, bool)
        assert len(subscribed._ready) < 400
        found += await take(subscribed, 2950)
        for key in ("k0", "k1", "k2", "k3", "k4"):
            assert firsts(found, key) == [number for number in range(3000) if f"k{number % 5}" == key]
        assert len(found) == 3000


async def test_cancelled_fetch_loses_nothing(shared: Kafka, app: str) -> None:
    """A fetch that is given up while records arrive leaves them to the next."""
    async with member(shared, app) as one:
        subscribed = await join(one)
        found: list[Delivery] = []
        for number in range(40):
            async with asyncio.TaskGroup() as group:
                fetching = group.create_task(subscribed.fetch(10, 5.0))
                await one.publish("orders", [placed(number)])
                fetching.cancel()
            if not fetching.cancelled():
                found += fetching.result()
        found += await take(subscribed, 40 - len(found))
        assert ids(found) == sorted(f"e{number}" for number in range(40))


async def test_partitions_that_differ_are_refused(shared: Kafka, app: str) -> None:
    """A key would change its partition, and its order would be lost: the error names the number to set."""
    wrong = KafkaTransport(shared.url(), app, EventsSettings(partitions=PARTITIONS + 1), SystemClock())
    with pytest.raises(BrokerError, match=r"has 8 partitions.*Set `partitions = 8`"):
        await wrong.publish("orders", [placed(0)])
    await wrong.close()


async def test_missing_topic_is_made_or_the_command_is_told(mock: KafkaMock) -> None:
    """Where topics cannot be made by us, the error holds the command that makes it."""
    async with member(mock, "nobody") as one:
        with pytest.raises(BrokerError, match=r"kafka-topics.sh --create --topic nobody.orders --partitions 8"):
            await one.publish("orders", [placed(0)])


async def test_cluster_that_is_away_is_an_error_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport that cannot reach the cluster says so, and where to look."""
    monkeypatch.setattr("seamline.events.brokers.kafka.cluster._ANSWER_TIMEOUT_S", 0.3)
    lost = KafkaTransport("kafka://127.0.0.1:1", "shop", EventsSettings(), SystemClock())
    with pytest.raises(BrokerError, match=r"Kafka does not answer .*\[events\] broker"):
        await lost.start()
    await lost.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://", "the server ''"),
        ("kafka://broker:port", "'broker:port'"),
        ("kafka://broker:99999", "'broker:99999'"),
        ("http://broker:9092", "begins with 'http'"),
        ("kafka://broker:9092?acks=0", "sets 'acks'"),
        ("kafka://broker:9092?producer.enable.idempotence=false", "sets 'producer.enable.idempotence'"),
        ("kafka://broker:9092?no.such.thing=1", "no.such.thing"),
        ("kafka://u:hunter2@broker:9092?sasl.mechanism=NONSENSE", "NONSENSE"),
    ],
)
def test_url_that_cannot_be_used_is_told(url: str, said: str) -> None:
    """The error names what is wrong with the url and never its password."""
    with pytest.raises(BrokerUrlError) as told:
        KafkaTransport(url, "shop", EventsSettings(), SystemClock())
    assert said in str(told.value)
    assert "hunter2" not in str(told.value)


def test_url_with_credentials_speaks_sasl() -> None:
    """User and password mean SASL, over TLS where the scheme says so; what is percent-encoded is decoded."""
    address = KafkaAddress.parse("kafka+tls://me:p%40ss@a:1,b?sasl.mechanism=PLAIN&consumer.fetch.min.bytes=5")
    assert address.of("producer") == {
        "bootstrap.servers": "a:1,b:9092",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": "p@ss",
    }
    assert address.of("consumer")["fetch.min.bytes"] == "5"
    assert "p@ss" not in repr(address)


async def test_brokers_that_return_are_used_again(mock: KafkaMock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publish that no broker acknowledges in time is an error; tried again later, every key has its order."""
    mock.topic("shop.orders", PARTITIONS)
    async with member(mock, "shop") as one:
        subscribed = await join(one)
        await one.publish("orders", [placed(number) for number in range(10)])
        mock.down()
        monkeypatch.setattr(transport, "PUBLISH_TIMEOUT_S", 0.5)
        for _ in range(2):
            with pytest.raises(BrokerError, match=r"within 0\.5 s|does not answer"):
                await one.publish("orders", [placed(number) for number in range(10, 200)])
        mock.up()
        monkeypatch.undo()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await one.publish("orders", [placed(number) for number in range(10, 200)])
                    break
                except BrokerError:
                    continue
        await one.publish("orders", [placed(200, key="last")])
        found = await take(subscribed, 201)
        while {delivery.record.id for delivery in found} != {f"e{number}" for number in range(201)}:
            found += await take(subscribed, 1)
        for key in ("k0", "k1", "k2", "k3", "k4"):
            assert firsts(found, key) == [number for number in range(200) if f"k{number % 5}" == key]


@pytest.mark.parametrize(
    "errors",
    [
        [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.REQUEST_TIMED_OUT, KafkaError._TRANSPORT],
        [KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND],
        [KafkaError._TRANSPORT] * 5,
    ],
)
async def test_errors_that_pass_are_not_seen(mock: KafkaMock, errors: list[int]) -> None:
    """What heals is tried again underneath: nothing is lost or out of order. (The mock does not drop repeats.)"""
    mock.topic("shop.orders", PARTITIONS)
    async with member(mock, "shop") as one:
        mock.fail(PRODUCE, errors)
        for begin in range(0, 500, 50):
            await one.publish("orders", [placed(number) for number in range(begin, begin + 50)])
        subscribed = await join(one)
        found: list[Delivery] = []
        while len(set(ids(found))) < 500:
            found += await take(subscribed, 1)
        for key in ("k0", "k1", "k2", "k3", "k4"):
            assert firsts(found, key) == [number for number in range(500) if f"k{number % 5}" == key]


@pytest.mark.parametrize("error", [KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_TIMESTAMP, KafkaError.UNKNOWN])
async def test_refused_record_leaves_no_gap(mock: KafkaMock, error: int) -> None:
    """After a refusal nothing that follows in its partition is sent before the batch is tried again.

    What is sent already is refused by a real broker, which checks sequence numbers; the mock does not. So the batch
    goes out as one request here, however slow the machine is.
    """
    mock.topic("shop.orders", PARTITIONS)
    async with member(mock, "shop", options="&producer.max.in.flight=1&producer.linger.ms=200") as one:
        await one.publish("orders", [placed(0, key="one")])
        mock.fail(PRODUCE, [error])
        rest = [placed(number, key="one") for number in range(1, 60)]
        with pytest.raises(BrokerError, match="refuses a record"):
            await one.publish("orders", rest)
        await one.publish("orders", rest)
        found = await drain(await join(one), "e59")
        assert firsts(found, "one") == list(range(60))


async def test_closing_gives_up_what_was_added_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that comes into the queue just after it was emptied would wait for a broker for ever."""

    class Busy(Producer):
        def purge(self, *given: Any, **named: Any) -> None:
            super().purge(*given, **named)
            if not late:
                late.append(b"late")
                super().produce("nowhere", late[0])

    late: list[bytes] = []
    monkeypatch.setattr(producer, "Producer", Busy)
    closing = producer.KafkaProducer({"bootstrap.servers": "127.0.0.1:1"})
    closing._client.produce("nowhere", b"first")
    async with asyncio.timeout(PATIENCE_S):
        await closing.close()
    assert late


async def test_record_that_is_too_large_is_told(shared: Kafka, app: str) -> None:
    """A record over the limit of the client is refused by name, and the next ones go through."""
    async with member(shared, app) as one:
        large = Record(id="large", source="orders", type="Placed", data=b"x" * 2_000_000, time_ms=1)
        with pytest.raises(EventTooLargeError, match=r"2000000 bytes.*max\.message\.bytes"):
            await one.publish("orders", [placed(0), large])
        await one.publish("orders", [placed(1)])
        assert ids(await take(await join(one), 1)) == ["e1"]


async def test_commit_that_fails_is_repeated(mock: KafkaMock) -> None:
    """Acknowledgements whose commit was refused are committed with the next."""
    mock.topic("shop.orders", PARTITIONS)
    async with member(mock, "shop") as one:
        await one.publish("orders", [placed(number, key="one") for number in range(10)])
        subscribed = await join(one)
        found = await take(subscribed, 10)
        mock.fail(OFFSET_COMMIT, [KafkaError.UNKNOWN])
        await subscribed.acknowledge(found[:5])
        await subscribed.acknowledge(found[5:9])
        await subscribed.close()
        assert ids(await take(await join(one), 1)) == ["e9"]


async def test_events_deleted_unread_are_told(mock: KafkaMock, caplog: pytest.LogCaptureFixture) -> None:
    """Retention that overtakes a group is an error in the log, with the number of events that nobody read."""
    mock.topic("shop.orders", PARTITIONS)
    async with member(mock, "shop") as one:
        await one.publish("orders", [placed(number, key="one") for number in range(10)])
        partition = partition_of(placed(0, key="one"), PARTITIONS)
        await (await join(one)).close()
        mock.delete_before("shop.orders", partition, 7)
        await one.publish("orders", [placed(10, key="one")])
        found = await drain(await join(one), "e10")
    assert firsts(found, "one")[-1] == 10
    assert f"7 events of shop.orders [{partition}] were deleted" in caplog.text


async def test_durability_is_told(shared: Kafka, app: str, caplog: pytest.LogCaptureFixture) -> None:
    """What an acknowledgement means on this cluster is in the promises and in the log: a warning where one machine's
    power loss is enough to lose it."""
    async with member(shared, app) as one:
        await one.publish("orders", [placed(0)])
        assert "replicas have it" in one.promises.durable_when
        assert "fsync" in one.promises.durable_when
    (line,) = [each for each in caplog.records if "an event is acknowledged when" in each.getMessage()]
    safe = "at least 2" in line.getMessage() or "at least 3" in line.getMessage()
    assert line.levelname == ("INFO" if safe else "WARNING")
    assert ("set min.insync.replicas to 2 or more" in line.getMessage()) is not safe


def test_a_client_that_is_not_heard_is_replaced(mock: KafkaMock):
    """One that was connected while brokers came and went may time out for ever; the next question goes to a new one."""
    cluster = Cluster(KafkaAddress.parse(mock.url()).of("admin"))
    mock.topic("app.orders", 2)

    class Deaf:
        def list_consumer_group_offsets(self, *_: object, **__: object) -> dict[str, Future[object]]:
            future: Future[object] = Future()
            future.set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT)))
            return {"group": future}

    cluster._admin = Deaf()
    with pytest.raises(BrokerError, match="does not answer"):
        cluster.committed("group", "app.orders", [0, 1])
    assert cluster.committed("group", "app.orders", [0, 1]) == {}
