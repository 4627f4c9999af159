"""What is particular to one broker: what it says of its disk, what it keeps, and what does not belong to us in it."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.events.conformance import GROUP, TOPIC, TYPES, Arena, Broker, Contender, number_of, record, take
from tests.events.contenders import CONTENDERS
from tests.events.servers import Redis

from seamline.events.brokers import open_transport
from seamline.events.brokers.nats.log import durability
from seamline.events.errors import BrokerUrlError, EventsError
from seamline.events.leases import Leases
from seamline.kernel.clock import SystemClock
from seamline.kernel.settings import EventsSettings

OURS = pytest.mark.wants("served", "leased")


class Forgetful(Redis):
    """With the policy that most Redis servers have."""

    appendfsync = "everysec"


@pytest.fixture
def forgetful() -> Iterator[Broker]:
    if not Redis.installed():
        pytest.skip(f"{Redis.program} is not installed")
    with Forgetful() as broker:
        yield broker


@pytest.mark.needs_server
async def test_redis_that_syncs_each_second_is_warned_of(
    forgetful: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """The promise says that power loss loses events, a warning names the setting; not when ``relaxed`` asked for it."""
    async with Arena(Contender("redis", Forgetful), forgetful, tmp_path) as arena:
        transport = await arena.join()
        assert "appendfsync everysec" in transport.promises.durable_when
        assert "power loss" in transport.promises.durable_when
        (line,) = [each for each in caplog.records if each.levelno == logging.WARNING]
        assert "appendfsync always" in line.getMessage()
        caplog.clear()
        arena.settings = replace(arena.settings, durability="relaxed")
        await arena.join()
        assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.needs_server
@OURS
async def test_each_broker_states_its_policy_when_it_connects(arena: Arena, caplog: pytest.LogCaptureFixture):
    """One line with what an acknowledged event has gone through; a warning where that is less than fsync."""
    caplog.set_level(logging.INFO)
    transport = await arena.join()
    (line,) = [each for each in caplog.records if "a published event is" in each.getMessage()]
    assert "fsync" in line.getMessage()
    if arena.contender.name == "nats":
        assert line.levelno == logging.WARNING
        assert "sync_interval: always" in line.getMessage()
        assert "power loss may lose" in transport.promises.durable_when
    else:
        assert line.levelno == logging.INFO
        assert transport.promises.durable_when.startswith("fsynced")


def test_nats_is_spoken_of_as_the_connected_version_is():
    """Before 2.10 there is nothing to set; since then nobody is told to upgrade."""
    fact, remedy = durability((2, 9, 10), 1)
    assert "NATS 2.9.10 fsyncs every 2 minutes" in fact
    assert remedy.startswith("upgrade to 2.10")
    for version in ((2, 10, 0), (2, 12, 1), (3, 0, 0)):
        fact, remedy = durability(version, 3)
        assert "on 3 servers" in fact
        assert "sync_interval comes round" in fact
        assert "2.10" not in fact + remedy
        assert remedy.startswith("set `sync_interval: always`")


@pytest.mark.needs_server
@OURS
async def test_what_is_older_than_the_retention_goes(arena: Arena):
    """By size: of 40 MB that were published into 8 MB, the newest are there and the oldest are not."""
    arena.settings = EventsSettings(partitions=2, retention_bytes=8 * 1024 * 1024)
    transport = await arena.join()
    data = msgspec.json.encode({"number": 0, "filling": "x" * 8192})
    for begin in range(0, 5120, 16):
        await transport.publish(TOPIC, [record(begin + each, data=data) for each in range(16)])
    last = record(9999)
    await transport.publish(TOPIC, [last])
    async with arena.subscribed(transport) as subscription:
        count = 0
        async with asyncio.timeout(30):
            while True:
                part = await subscription.fetch(500, 5)
                await subscription.acknowledge(part)
                count += len(part)
                if part[-1].record.id == last.id:
                    break
        assert 400 < count < 3000
        assert (await subscription.lag()).events == 0


@pytest.mark.needs_server
@pytest.mark.parametrize("contender", ["redis"])
async def test_what_is_not_an_event_is_passed_over(arena: Arena, caplog: pytest.LogCaptureFixture):
    """Something that another program wrote into a stream of ours holds up nothing, and is named in the log."""
    arena.settings = EventsSettings(partitions=1)
    transport: Any = await arena.join()
    await transport.publish(TOPIC, [record(1)])
    await transport._log._redis.execute_command("XADD", f"{arena.app}:events:{TOPIC}:0", "*", "hello", "there")
    await transport.publish(TOPIC, [record(2)])
    async with arena.subscribed(transport) as subscription:
        assert [number_of(each) for each in await take(subscription, 2)] == [1, 2]
        assert (await subscription.lag()).events == 0
    assert "is not an event and is passed over" in caplog.text


@pytest.mark.needs_server
@pytest.mark.parametrize("contender", ["postgresql"])
async def test_who_waits_is_woken_by_a_notification(arena: Arena, monkeypatch: pytest.MonkeyPatch):
    """Of another process, again and again; with the looking of its own put off by an hour. None is missed between
    looking and waiting."""
    monkeypatch.setattr("seamline.events.brokers.postgresql.POLL_S", 3600.0)
    transport, other = await arena.join(), await arena.join()
    async with arena.subscribed(transport) as subscription:
        assert await subscription.fetch(1, 0.1) == []
        for number in range(100):
            await other.publish(TOPIC, [record(number)])
            assert [number_of(each) for each in await take(subscription, 1)] == [number]


@pytest.mark.needs_server
@pytest.mark.parametrize("contender", ["postgresql"])
async def test_a_lost_notification_is_made_up_for(arena: Arena, monkeypatch: pytest.MonkeyPatch):
    """Where NOTIFY does not arrive, as behind a connection pooler, a reader finds new events by looking."""
    monkeypatch.setattr("seamline.events.brokers.postgresql.POLL_S", 0.2)
    monkeypatch.setattr("seamline.events.brokers.postgresql.PostgresqlLog._heard", print)
    transport = await arena.join()
    async with arena.subscribed(transport) as subscription:
        assert await subscription.fetch(1, 0.1) == []
        await transport.publish(TOPIC, [record(1)])
        assert [number_of(each) for each in await take(subscription, 1)] == [1]


@pytest.mark.needs_server
@OURS
async def test_a_place_that_somebody_else_wrote_is_read_again(arena: Arena):
    """A process that wakes up late and claims a partition that is ours does not stop us: we claim it back."""
    transport: Any = await arena.join()
    await transport.publish(TOPIC, [record(number) for number in range(10)])
    async with arena.subscribed(transport) as subscription:
        got = await take(subscription, 5, acknowledge=False)
        await transport._log.claim(TOPIC, GROUP, range(arena.settings.partitions), "a late riser")
        await subscription.acknowledge(got)  # is not written
        seen = {number_of(each) for each in await take(subscription, 10)}
        assert seen == set(range(10))


@pytest.mark.needs_server
@OURS
async def test_fewer_partitions_than_there_were_are_refused(arena: Arena):
    """What is in the partitions that nobody would read is not left behind silently."""
    transport = await arena.join()
    async with arena.subscribed(transport):
        pass
    arena.settings = EventsSettings(partitions=3)
    fewer = await arena.join()
    with pytest.raises(EventsError, match="in more than the 3 partitions"):
        await fewer.subscribe(TOPIC, GROUP, TYPES, "earliest")


@pytest.mark.needs_server
@OURS
async def test_applications_on_one_broker_do_not_see_each_other(arena: Arena):
    """The same topic and group under another name is another."""
    transport = await arena.join()
    await transport.publish(TOPIC, [record(1)])
    arena.app += "-2"
    other = await arena.join()
    subscription = await other.subscribe(TOPIC, GROUP, TYPES, "earliest")
    assert await subscription.fetch(1, 0.3) == []
    await subscription.close()


@pytest.mark.parametrize(
    ("url", "package", "extra"),
    [("nats://h", "nats", "nats"), ("redis://h", "redis", "redis"), ("postgresql://h/d", "asyncpg", "postgresql")],
)
def test_a_client_that_is_missing_is_named_with_its_remedy(
    url: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
):
    """Without the broker's client the error is one line that can be pasted."""
    for name in [name for name in sys.modules if name.startswith(f"seamline.events.brokers.{extra}")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Missing(package), *sys.meta_path])
    leases: dict[str, Leases] = {}
    with pytest.raises(BrokerUrlError) as refused:
        open_transport(url, app="shop", settings=EventsSettings(), leases=leases.__getitem__, clock=SystemClock())
    assert f'pip install "seamline[{extra}]"' in refused.value.remedy


class _Missing:
    """An import hook that has not got a package."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, name: str, *_: object) -> None:
        if name == self._package or name.startswith(f"{self._package}."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=self._package)


@pytest.mark.parametrize("url", ["nats://host?replicas=9", "nats://host?durable=yes"])
def test_what_a_url_may_not_say_is_refused(url: str):
    """A part of the url that would be ignored is an error instead."""
    leases: dict[str, Leases] = {}
    with pytest.raises(BrokerUrlError, match="ends in"):
        open_transport(url, app="shop", settings=EventsSettings(), leases=leases.__getitem__, clock=SystemClock())


def test_every_contender_is_known():
    """The suite is run against all ways that there are."""
    assert {name.removesuffix("-mock") for name in CONTENDERS} == {"embedded", "nats", "redis", "postgresql", "kafka"}
