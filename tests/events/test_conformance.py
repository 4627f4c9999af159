"""One suite for every way that events can take; see :mod:`tests.events.conformance` for how a transport enters."""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from time import time
from typing import Any

import msgspec
import pytest
from tests.events.conformance import (
    GROUP,
    PATIENCE_S,
    TOPIC,
    TYPES,
    Arena,
    by_key,
    ids,
    number_of,
    persistently,
    record,
    take,
)

from seamline.events.brokers import open_transport
from seamline.events.errors import BrokerError, BrokerUrlError, EventTooLargeError, LostLeaseError, UnknownGroupError
from seamline.events.fences import check
from seamline.events.leases import Leases
from seamline.events.transport import Delivery, Subscription
from seamline.kernel.clock import SystemClock
from seamline.kernel.settings import EventsSettings

pytestmark = pytest.mark.needs_server
restarts = pytest.mark.wants("restarts")
seeks = pytest.mark.wants("seeks")


async def nothing_more(subscription: Subscription, wait_s: float = 0.3) -> None:
    assert not await subscription.fetch(10, wait_s)


# Publishing and handing out


async def test_what_is_published_is_handed_out_as_it_was(arena: Arena):
    """A record arrives with all that it had, in the topic it was published to."""
    transport = await arena.join()
    sent = msgspec.structs.replace(
        record(1, "k-1"), version=3, trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        expires_ms=int(time() * 1000) + 3_600_000, headers={"tenant": "acme"},
    )  # fmt: skip
    await transport.publish(TOPIC, [sent])
    async with arena.subscribed(transport) as subscription:
        (delivery,) = await take(subscription, 1)
    assert delivery.record == sent
    assert delivery.topic == TOPIC
    assert delivery.offset
    assert not delivery.redelivered


@pytest.mark.parametrize("key", ["", "häuser & söhne", "雪/☃ 100%", "a.b.*.>", " spaced ", '"quoted\\"', "x" * 500])
async def test_keys_and_headers_may_hold_any_text(arena: Arena, key: str):
    """A key, a header and an id come back letter by letter, whatever the broker's own words are."""
    transport = await arena.join()
    sent = msgspec.structs.replace(record(1, key), id=f"ид-{key[:40]}-1", headers={"note": f"Grüße: {key[:40]}."})
    await transport.publish(TOPIC, [sent])
    async with arena.subscribed(transport) as subscription:
        (delivery,) = await take(subscription, 1)
    assert delivery.record == sent


async def test_order_is_kept_within_every_key(arena: Arena):
    """2,000 events of 40 keys, published in batches, come in order within each key."""
    transport = await arena.join()
    sent = [record(number, f"k{number * 7 % 40}") for number in range(2000)]
    for begin in range(0, 2000, 300):
        await transport.publish(TOPIC, sent[begin : begin + 300])
    async with arena.subscribed(transport) as subscription:
        got = by_key(await take(subscription, 2000))
    assert got == {f"k{key}": [number for number in range(2000) if number * 7 % 40 == key] for key in range(40)}


async def test_concurrent_publishers_lose_nothing(arena: Arena):
    """Two processes that publish to one topic at once: each event is there once, each key in its publisher's order."""
    transports = [await arena.join(), await arena.join()]

    async def publish(place: int) -> None:
        for begin in range(0, 200, 20):
            batch = [record(number, f"p{place}") for number in range(begin, begin + 20)]
            await persistently(partial(transports[place].publish, TOPIC, batch))

    async with asyncio.TaskGroup() as group:
        for place in (0, 1):
            group.create_task(publish(place))
    async with arena.subscribed(transports[0]) as subscription:
        got = by_key(await take(subscription, 400))
    assert got == {"p0": list(range(200)), "p1": list(range(200))}


async def test_what_is_published_again_keeps_its_order(arena: Arena):
    """A relay that died repeats its batch: events come twice at the worst, and none before one it follows."""
    transport = await arena.join()
    sent = [record(number) for number in range(10)]
    await transport.publish(TOPIC, sent[:6])
    again = await arena.join()
    await again.publish(TOPIC, sent)
    await transport.publish(TOPIC, [end := record(99)])
    async with arena.subscribed(again) as subscription:
        got: list[Delivery] = []
        while not got or got[-1].record.id != end.id:
            got += await take(subscription, 1)
    assert by_key(got) == {"k": [*range(10), 99]}
    assert max(Counter(ids(got)).values()) <= 2


async def test_only_the_types_asked_for_are_handed_out(arena: Arena):
    """A group that wants one type sees nothing of another, and is not behind because of it."""
    transport = await arena.join()
    types = ["OrderPlaced", "OrderCancelled"]
    await transport.publish(TOPIC, [record(number, f"k{number}", type_=types[number % 2]) for number in range(40)])
    async with arena.subscribed(transport) as subscription:
        got = await take(subscription, 20)
        assert {delivery.record.type for delivery in got} == {"OrderPlaced"}
        await nothing_more(subscription)
        await _lag(subscription, 0)


async def test_each_group_gets_every_event(arena: Arena):
    """Groups do not take events from one another."""
    transport = await arena.join()
    await transport.publish(TOPIC, [record(number) for number in range(10)])
    async with arena.subscribed(transport) as one, arena.subscribed(transport, "billing.invoice") as other:
        assert by_key(await take(one, 10)) == by_key(await take(other, 10)) == {"k": list(range(10))}


async def test_a_big_event_arrives_or_is_refused_plainly(arena: Arena):
    """An event of 1 MB arrives whole, or is refused by an error that names sizes and remedy; later ones still pass."""
    transport = await arena.join()
    big = record(1, data=b'"' + b"x" * 1024 * 1024 + b'"')
    refusal = None
    try:
        await transport.publish(TOPIC, [big])
    except EventTooLargeError as error:
        refusal = error
    await transport.publish(TOPIC, [small := record(2)])
    async with arena.subscribed(transport) as subscription:
        got = await take(subscription, 1 if refusal else 2)
    assert [delivery.record for delivery in got] == ([small] if refusal else [big, small])
    if refusal is not None:
        assert "bytes" in refusal.fact
        assert refusal.remedy


async def test_an_event_is_handed_out_at_once_to_one_who_waits(arena: Arena):
    """A fetch that waits returns when something is published, long before its time is over."""
    transport = await arena.join()
    async with arena.subscribed(transport) as subscription, asyncio.TaskGroup() as group:
        await nothing_more(subscription)
        waiting = group.create_task(subscription.fetch(10, 600))
        await asyncio.sleep(0)
        await transport.publish(TOPIC, [record(1)])
        async with asyncio.timeout(PATIENCE_S):
            assert [number_of(delivery) for delivery in await waiting] == [1]


async def test_waiting_costs_nothing(arena: Arena, monkeypatch: pytest.MonkeyPatch):
    """While there is nothing to hand out, the event loop sleeps; it does not go round and ask."""
    transport = await arena.join()
    async with arena.subscribed(transport) as subscription:
        await nothing_more(subscription)
        turns = 0
        selector: Any = selectors.DefaultSelector
        select = selector.select

        def counted(*args: Any) -> Any:
            nonlocal turns
            turns += 1
            return select(*args)

        monkeypatch.setattr(selector, "select", counted)
        await nothing_more(subscription, 1.5)
    assert turns < 150


# Acknowledging


async def test_what_was_acknowledged_is_not_handed_out_again(arena: Arena):
    """After a close and a new subscription, a group goes on where its acknowledgements ended."""
    transport = await arena.join()
    await transport.publish(TOPIC, [record(number, f"k{number % 5}") for number in range(20)])
    async with arena.subscribed(transport) as subscription:
        await take(subscription, 20)
    await transport.publish(TOPIC, [record(number, f"k{number % 5}") for number in range(20, 30)])
    async with arena.subscribed(transport) as subscription:
        assert sorted(number_of(delivery) for delivery in await take(subscription, 10)) == list(range(20, 30))
        await nothing_more(subscription)


async def test_what_was_not_acknowledged_is_handed_out_again_in_order(arena: Arena):
    """A subscription that ends without acknowledging leaves all of it, in order, to the next."""
    transport = await arena.join()
    await transport.publish(TOPIC, [record(number, f"k{number % 3}") for number in range(30)])
    async with arena.subscribed(transport) as subscription:
        first = await take(subscription, 30, acknowledge=False)
        await nothing_more(subscription)  # it has them all: nothing is handed out twice to one who lives
    async with arena.subscribed(transport) as subscription:
        second = await take(subscription, 30)
    assert by_key(first) == by_key(second) == {f"k{key}": list(range(key, 30, 3)) for key in range(3)}


@pytest.mark.wants("exact")
async def test_acknowledgements_may_come_in_any_order(arena: Arena):
    """What was left out in the middle comes again, alone and marked; what was acknowledged around it does not."""
    transport = await arena.join()
    await transport.publish(TOPIC, [record(number, f"k{number % 3}") for number in range(30)])
    async with arena.subscribed(transport) as subscription:
        got = await take(subscription, 30, acknowledge=False)
        kept = [delivery for delivery in reversed(got) if number_of(delivery) not in {4, 11, 12}]
        await subscription.acknowledge(kept[:10])
        await subscription.acknowledge(kept[10:])
    async with arena.subscribed(transport) as subscription:
        again = await take(subscription, 3)
        assert sorted(number_of(delivery) for delivery in again) == [4, 11, 12]
        assert all(delivery.redelivered for delivery in again)
        await nothing_more(subscription)


async def test_an_acknowledgement_of_what_is_known_already_does_no_harm(arena: Arena):
    """Twice, or with a subscription that has not handed it out: nothing is lost by it."""
    transport = await arena.join()
    await transport.publish(TOPIC, [record(1), record(2)])
    async with arena.subscribed(transport) as subscription:
        got = await take(subscription, 2)
        await subscription.acknowledge(got)
    async with arena.subscribed(transport) as subscription:
        await subscription.acknowledge(got)
        await transport.publish(TOPIC, [record(3)])
        assert [number_of(delivery) for delivery in await take(subscription, 1)] == [3]


# Several processes of one group


async def test_processes_share_a_topic_and_take_over_from_one_another(arena: Arena):
    """Two members share the partitions; one leaves with events in its hands, and the other gets all that is left."""
    one, other = await arena.join(), await arena.join()
    got: dict[str, list[Delivery]] = {"one": [], "other": []}
    first = await one.subscribe(TOPIC, GROUP, TYPES, "earliest")
    await one.publish(TOPIC, [record(number, f"k{number % 16}") for number in range(160)])
    got["one"] += await take(first, 160)
    second = await other.subscribe(TOPIC, GROUP, TYPES, "earliest")
    number = 160
    async with asyncio.timeout(2 * PATIENCE_S):
        while not got["other"]:  # until the second has its part
            await one.publish(TOPIC, [record(number + each, f"k{each}") for each in range(16)])
            number += 16
            for subscription, name in ((first, "one"), (second, "other")):
                part = await subscription.fetch(100, 0.1)
                got[name] += part
                await subscription.acknowledge(part)
    left = await second.fetch(100, 0.1)  # in its hands when it goes, not acknowledged
    await arena.leave(other)
    await one.publish(TOPIC, [record(number + each, f"k{each}") for each in range(16)])
    number += 16
    seen = {each.record.id for part in got.values() for each in part}
    async with asyncio.timeout(2 * PATIENCE_S):
        while len(seen) < number:
            part = await first.fetch(100, 0.5)
            await first.acknowledge(part)
            got["one"] += part
            seen |= {each.record.id for each in part}
    assert {each.record.id for each in left} <= {each.record.id for each in got["one"]}
    for numbers in by_key(sorted(got["one"] + got["other"], key=number_of)).values():
        assert numbers == sorted(numbers)


@pytest.mark.wants("leased")
async def test_a_late_effect_of_a_partition_that_has_gone_is_refused(arena: Arena):
    """The fence of a delivery holds while the partition is ours, and no longer when another has taken it."""
    one, other = await arena.join(), await arena.join()
    await one.publish(TOPIC, [record(number, f"k{number}") for number in range(16)])
    first = await one.subscribe(TOPIC, GROUP, TYPES, "earliest")
    got = await take(first, 16, acknowledge=False)
    async with arena.database.transaction() as tx:
        for delivery in got:
            assert delivery.fence is not None
            await check(tx, delivery.fence)
    second = await other.subscribe(TOPIC, GROUP, TYPES, "earliest")
    moved = await take(second, 1, acknowledge=False)
    late = next(delivery for delivery in got if delivery.record.id == moved[0].record.id)
    assert late.fence is not None
    with pytest.raises(LostLeaseError):
        async with arena.database.transaction() as tx:
            await check(tx, late.fence)
    await first.acknowledge([late])  # too late: it is the other's now
    await second.close()
    async with asyncio.timeout(PATIENCE_S):
        again: list[Delivery] = []
        while late.record.id not in ids(again):
            again += await first.fetch(100, 0.5)


# Where a group begins


async def test_a_group_may_begin_with_what_comes(arena: Arena):
    """``latest`` hands out what is published after the subscription, and nothing from before."""
    transport = await arena.join()
    await transport.publish(TOPIC, [record(number, f"k{number}") for number in range(10)])
    subscription = await transport.subscribe(TOPIC, GROUP, TYPES, "latest")
    await nothing_more(subscription)
    await transport.publish(TOPIC, [record(10)])
    assert [number_of(delivery) for delivery in await take(subscription, 1)] == [10]
    await subscription.close()


async def test_a_known_group_goes_on_where_it_was_whatever_it_says(arena: Arena):
    """The start is for new groups: one that comes back misses nothing that was published while it was away."""
    transport = await arena.join()
    async with arena.subscribed(transport) as subscription:
        await nothing_more(subscription)
    await transport.publish(TOPIC, [record(1)])
    subscription = await transport.subscribe(TOPIC, GROUP, TYPES, "latest")
    assert [number_of(delivery) for delivery in await take(subscription, 1)] == [1]
    await subscription.close()


@seeks
async def test_a_group_may_begin_at_a_time(arena: Arena):
    """Everything that was published since then, and nothing from before."""
    transport = await arena.join()
    await transport.publish(TOPIC, [record(number, f"k{number}") for number in range(10)])
    await asyncio.sleep(0.02)
    moment = datetime.now(UTC)
    await asyncio.sleep(0.02)
    await transport.publish(TOPIC, [record(number, f"k{number}") for number in range(10, 20)])
    subscription = await transport.subscribe(TOPIC, GROUP, TYPES, moment)
    assert sorted(number_of(delivery) for delivery in await take(subscription, 10)) == list(range(10, 20))
    await nothing_more(subscription)
    await subscription.close()


@seeks
async def test_a_group_may_begin_at_an_offset(arena: Arena):
    """With the event that stands there, in its partition; those before it are not handed out."""
    transport = await arena.join()
    await transport.publish(TOPIC, [record(number, "k") for number in range(10)])
    async with arena.subscribed(transport) as subscription:
        sixth = (await take(subscription, 10))[6]
    number = int(sixth.offset.rpartition("-")[2])
    subscription = await transport.subscribe(TOPIC, "emails.other", TYPES, number)
    assert [number_of(delivery) for delivery in await take(subscription, 4)] == [6, 7, 8, 9]
    await subscription.close()


@seeks
async def test_a_group_can_be_moved_back_and_forth(arena: Arena):
    """Replay from the earliest, and a jump to the latest."""
    transport = await arena.join()
    await transport.publish(TOPIC, [record(number, f"k{number % 3}") for number in range(12)])
    async with arena.subscribed(transport) as subscription:
        await take(subscription, 12)
    await transport.seek(TOPIC, GROUP, "earliest")
    async with arena.subscribed(transport) as subscription:
        assert by_key(await take(subscription, 12)) == {f"k{key}": list(range(key, 12, 3)) for key in range(3)}
        await nothing_more(subscription)
    await transport.seek(TOPIC, GROUP, "earliest")
    await transport.seek(TOPIC, GROUP, "latest")
    async with arena.subscribed(transport) as subscription:
        await nothing_more(subscription)


@pytest.mark.wants("served")
async def test_a_group_that_does_not_exist_cannot_be_moved(arena: Arena):
    """Seeking a group of which nobody has heard is an error that names it."""
    transport = await arena.join()
    await transport.publish(TOPIC, [record(1)])
    with pytest.raises(UnknownGroupError, match=r"emails\.misspelt"):
        await transport.seek(TOPIC, "emails.misspelt", "earliest")


async def _lag(subscription: Subscription, events: int) -> float:
    """Wait until the group is so far behind; the age of the oldest."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await subscription.lag()).events != events:  # noqa: ASYNC110  # a broker has no event to wait for
            await asyncio.sleep(0.05)
    return found.oldest_s


async def test_lag_tells_how_far_a_group_is_behind(arena: Arena):
    """It counts what nobody acknowledged, knows the age of the oldest, and is 0 at the end."""
    transport = await arena.join()
    async with arena.subscribed(transport) as subscription:
        assert await _lag(subscription, 0) == 0
        sent = [record(number, f"k{number % 5}") for number in range(50)]
        await transport.publish(TOPIC, [msgspec.structs.replace(each, time_ms=each.time_ms - 90_000) for each in sent])
        assert 90 <= await _lag(subscription, 50) < 120
        got = await take(subscription, 50, acknowledge=False)
        assert 90 <= await _lag(subscription, 50) < 120
        await subscription.acknowledge(got[:30])
        await _lag(subscription, 20)
        await subscription.acknowledge(got[30:])
        assert await _lag(subscription, 0) == 0


# Time


async def test_a_delayed_event_holds_up_nobody(arena: Arena):
    """It is handed out when it is due, and events of its own key and of others pass it meanwhile."""
    transport = await arena.join()
    due_ms = int(time() * 1000) + 3_600_000
    await transport.publish(TOPIC, [record(1, due_ms=due_ms), record(2), record(3, "other")])
    async with arena.subscribed(transport) as subscription:
        assert sorted(number_of(delivery) for delivery in await take(subscription, 2)) == [2, 3]
        await nothing_more(subscription)
        arena.clock.offset_s = 3_601
        assert [number_of(delivery) for delivery in await take(subscription, 1)] == [1]
        await nothing_more(subscription)


async def test_a_delayed_event_outlives_the_process_that_read_it(arena: Arena):
    """Its successor hands it out when it is due, although everything after it was acknowledged."""
    transport = await arena.join()
    due_ms = int(time() * 1000) + 3_600_000
    await transport.publish(TOPIC, [record(1, due_ms=due_ms), *(record(number) for number in range(2, 20))])
    async with arena.subscribed(transport) as subscription:
        await take(subscription, 18)
    arena.clock.offset_s = 3_601
    async with arena.subscribed(transport) as subscription:
        async with asyncio.timeout(PATIENCE_S):
            got: list[Delivery] = []
            while 1 not in [number_of(delivery) for delivery in got]:
                got += await take(subscription, 1)


async def test_an_expired_event_is_not_handed_out(arena: Arena):
    """Neither one that had expired when it was read, nor one that expires while it waits for its due time."""
    transport = await arena.join()
    now_ms = int(time() * 1000)
    await transport.publish(
        TOPIC,
        [
            record(1, expires_ms=now_ms - 1000),
            record(2, due_ms=now_ms + 600_000, expires_ms=now_ms + 660_000),
            record(3, expires_ms=now_ms + 600_000),
        ],
    )
    async with arena.subscribed(transport) as subscription:
        assert [number_of(delivery) for delivery in await take(subscription, 1)] == [3]
        arena.clock.offset_s = 3_600
        await transport.publish(TOPIC, [record(4)])
        assert [number_of(delivery) for delivery in await take(subscription, 1)] == [4]
        await _lag(subscription, 0)


# When the broker is away


@restarts
async def test_nothing_is_lost_when_the_broker_is_killed_between_publishes(arena: Arena):
    """``kill -9`` after the acknowledgement, a start on the same data: what was acknowledged is there, in order."""
    transport = await arena.join()
    await transport.publish(TOPIC, [record(number, f"k{number % 5}") for number in range(100)])
    arena.broker.kill()
    arena.broker.start()
    batch = [record(number, f"k{number % 5}") for number in range(100, 200)]
    await persistently(partial(transport.publish, TOPIC, batch))
    async with arena.subscribed(transport) as subscription:
        got: list[Delivery] = []
        while len(set(ids(got))) < 200:
            got += await take(subscription, 1)
    assert by_key(got) == {f"k{key}": list(range(key, 200, 5)) for key in range(5)}


@restarts
async def test_nothing_is_lost_when_the_broker_is_killed_during_consumption(arena: Arena):
    """Fetched and acknowledged in parts while the broker dies twice: every event comes, in order within its key."""
    transport = await arena.join()
    await transport.publish(TOPIC, [record(number, f"k{number % 5}") for number in range(300)])
    async with arena.subscribed(transport) as subscription:
        got = await take(subscription, 100)
        for number in (300, 330):
            await transport.publish(TOPIC, [record(number + each, f"k{each % 5}") for each in range(30)])
            held = await take(subscription, 30, acknowledge=False)
            got += held
            arena.broker.kill()
            with pytest.raises(BrokerError):
                async with asyncio.timeout(PATIENCE_S):
                    while True:
                        await subscription.acknowledge(held)
                        got += await subscription.fetch(1, 0.5)
            arena.broker.start()
            await persistently(partial(subscription.acknowledge, held))
        async with asyncio.timeout(PATIENCE_S):
            while len(set(ids(got))) < 360:
                got += await take(subscription, 1)
    assert by_key(got) == {f"k{key}": list(range(key, 360, 5)) for key in range(5)}


@restarts
async def test_a_broker_that_is_away_is_named_and_waited_for(arena: Arena):
    """Publishing and fetching say that it does not answer and what to do; both work again when it is back."""
    transport = await arena.join()
    async with arena.subscribed(transport) as subscription:
        await transport.publish(TOPIC, [record(1)])
        await take(subscription, 1)
        arena.broker.kill()
        with pytest.raises(BrokerError, match=r"does not answer|has no JetStream") as refused:
            await transport.publish(TOPIC, [record(2)])
        assert refused.value.remedy
        with pytest.raises(BrokerError):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await subscription.fetch(1, 0.2)
        arena.broker.start()
        await persistently(partial(transport.publish, TOPIC, [record(3)]))
        assert number_of((await take(subscription, 1))[0]) in {2, 3}


@pytest.mark.wants("served")
async def test_an_absent_broker_is_one_clear_error(arena: Arena, monkeypatch: pytest.MonkeyPatch):
    """Nobody listens at the url: start says so at once, without password, and with the next step."""
    if arena.contender.name.startswith("kafka"):
        monkeypatch.setattr("seamline.events.brokers.kafka.cluster._ANSWER_TIMEOUT_S", 0.3)
    url = arena.broker.url()
    host, _, rest = url.rpartition(":")
    port = rest.partition("/")[0]
    transport = arena.transport(f"{host}:{'1'}{rest.removeprefix(port)}")
    with pytest.raises(BrokerError) as refused:
        await transport.start()
    assert "127.0.0.1:1" in str(refused.value)
    assert "tests-only" not in str(refused.value)
    assert refused.value.remedy


@pytest.mark.wants("passwords")
async def test_a_wrong_password_is_one_clear_error(arena: Arena):
    """The broker's refusal is told as one, and the password is not."""
    transport = arena.transport(arena.broker.url("wr0ng"))
    with pytest.raises(BrokerError, match="refuses") as refused:
        await transport.start()
    assert "wr0ng" not in str(refused.value)
    assert "password" in refused.value.remedy


@pytest.mark.wants("served")
@pytest.mark.parametrize("rest", ["", "host:notaport"])
async def test_a_url_that_cannot_be_read_is_one_clear_error(arena: Arena, rest: str):
    """A scheme without a host, a port that is no number: told before anything is connected, with an example."""
    scheme = arena.broker.url().partition("://")[0]
    with pytest.raises(BrokerUrlError) as refused:
        await arena.transport(f"{scheme}://{rest}").start()
    assert refused.value.remedy


async def test_the_promises_say_what_an_acknowledgement_means(arena: Arena):
    """What is read from the broker when it connects speaks of its fsync."""
    transport = await arena.join()
    assert "fsync" in transport.promises.durable_when or "on disk" in transport.promises.durable_when
    assert transport.relayed == arena.contender.served


def test_a_broker_that_nobody_knows_is_refused():
    """The error names the schemes that there are."""
    leases: dict[str, Leases] = {}
    settings, clock = EventsSettings(), SystemClock()
    with pytest.raises(BrokerUrlError, match="names no broker") as refused:
        open_transport(
            "amqp://guest:s3cret@host", app="shop", settings=settings, leases=leases.__getitem__, clock=clock
        )
    assert "s3cret" not in str(refused.value)
    assert "nats://" in refused.value.remedy
