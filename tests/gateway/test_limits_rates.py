"""Rates and quotas, by attack: too much, from everywhere, over several gateways, while the store is down."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import PostgresqlServer

from seamline.gateway.limits.errors import SharedStoreError
from seamline.gateway.limits.gcra import Arrivals, Meter
from seamline.gateway.limits.limiter import Limiter
from seamline.gateway.limits.quotas import Quotas
from seamline.gateway.limits.sharing import Sharing, Store
from seamline.gateway.limits.stores import PostgresqlStore, RedisStore
from seamline.kernel.clock import ManualClock
from seamline.kernel.settings import BadValueError, LimitsSettings, QuotaSettings, RateSettings, Settings
from seamline.kernel.store import Database, sqlite_url
from seamline.kernel.wire.http1 import HttpRefusal
from seamline.module.principal import User

ADA = User("ada", tenant="acme", client="key-1")


def limiter(clock: ManualClock, *rates: RateSettings, **more: Any) -> Limiter:
    return Limiter(LimitsSettings(rates=rates), clock, **more)


def passes(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except HttpRefusal:
        return False
    return True


def header(refusal: HttpRefusal, name: bytes) -> bytes:
    return dict(refusal.headers)[name]


# The algorithm


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=200),
)
def test_no_window_ever_lets_more_through_than_burst_and_rate(requests: int, burst: int, pauses: list[float]):
    """However somebody times it, n seconds let through at most the burst and n times the rate."""
    meter = Meter(requests, 1.0, burst)
    now, admitted = 0.0, list[float]()
    for pause in pauses:
        now += pause
        if meter.left_s("a", now) >= 0:
            meter.spend("a", now)
            admitted.append(now)
    for start, begin in enumerate(admitted):
        for end in range(start, len(admitted)):
            assert end - start + 1 <= burst + (admitted[end] - begin) * requests + 1e-3


@given(st.integers(1, 50), st.integers(1, 50))
def test_who_keeps_to_the_rate_is_never_refused(requests: int, burst: int):
    """A request at each interval, and the burst at the beginning."""
    meter = Meter(requests, 1.0, burst)
    for _ in range(burst):
        assert meter.left_s("a", 100.0) >= 0
        meter.spend("a", 100.0)
    for step in range(1, 100):
        now = 100.0 + step / requests
        assert meter.left_s("a", now) >= 0
        meter.spend("a", now)


def test_a_refusal_costs_nothing_and_says_when_to_come_back():
    """After exactly that long a request is let through, and not before."""
    meter = Meter(10, 1.0, 1)
    meter.spend("a", 50.0)
    wait = -meter.left_s("a", 50.0)
    assert math.isclose(wait, 0.1)
    assert meter.left_s("a", 50.0 + wait * 0.9) < 0
    assert meter.left_s("a", 50.0 + wait) >= 0


def test_memory_is_bounded_and_a_flood_of_names_does_not_free_the_flooder():
    """A million addresses do not make the gateway forget who asked most."""
    arrivals = Arrivals(1000)
    arrivals.put("greedy", 100.0, 0.0)
    for number in range(20_000):
        arrivals.put(f"address {number}", 1.0, 0.0)
        assert len(arrivals) <= 1000
    assert arrivals.ahead_s("greedy", 0.0) == 100.0
    arrivals.spend({f"late {number}": 1.0 for number in range(2000)}, 200.0)
    assert len(arrivals) <= 1000
    assert arrivals.ahead_s("greedy", 200.0) == 0.0


# The rules


def test_an_address_has_its_own_limit_and_a_network_one_over_all():
    """A crawler that spreads over a /24 meets the second; the neighbour's network is not touched."""
    clock = ManualClock()
    made = limiter(
        clock,
        RateSettings(name="address", by="address", requests=2),
        RateSettings(name="network", by="network", requests=5),
    )
    got = [passes(lambda n=n: made.before("/", "GET", f"1.2.3.{n % 100}")) for n in range(100)]
    assert sum(got) == 5
    assert sum(passes(lambda: made.before("/", "GET", "1.2.4.1")) for _ in range(10)) == 2
    clock.advance(1)
    assert sum(passes(lambda n=n: made.before("/", "GET", f"1.2.3.{n % 100}")) for n in range(100)) == 5


def test_addresses_of_one_ipv6_customer_count_as_one():
    """A new one for each request does not help."""
    made = limiter(ManualClock(), RateSettings(name="a", by="address", requests=3))
    got = [passes(lambda n=n: made.before("/", "GET", f"2001:db8::{n:x}")) for n in range(50)]
    assert sum(got) == 3


def test_users_keys_and_tenants_are_counted_wherever_they_come_from():
    """A stolen key is not worth more from a thousand addresses; nobody else pays for it."""
    made = limiter(
        ManualClock(),
        RateSettings(name="user", by="user", requests=4),
        RateSettings(name="key", by="key", requests=3),
        RateSettings(name="tenant", by="tenant", requests=6),
    )

    def ask(user: User | None, used: str, n: int) -> bool:
        return passes(lambda: made.after("/", "GET", f"10.0.{n}.1", user, used))

    assert sum(ask(ADA, "key", n) for n in range(20)) == 3
    assert sum(ask(ADA, "session", n) for n in range(20)) == 1, "the user's own limit, after three with the key"
    bob = User("bob", tenant="acme")
    assert sum(ask(bob, "session", n) for n in range(20)) == 2, "the tenant's, which both share"
    assert ask(User("cy", tenant="other"), "session", 1)
    assert sum(passes(lambda: made.after("/", "GET", "10.9.9.9", None, "")) for _ in range(9)) == 4, "by address"


def test_a_rule_holds_below_its_path_and_for_its_methods_only():
    """By segment, as routes do."""
    made = limiter(ManualClock(), RateSettings(name="a", by="route", requests=1, path="/api", methods=("POST",)))
    assert passes(lambda: made.before("/api/x", "POST", "1.1.1.1"))
    assert not passes(lambda: made.before("/api", "POST", "2.2.2.2"))
    assert passes(lambda: made.before("/apix", "POST", "1.1.1.1"))
    assert passes(lambda: made.before("/api", "GET", "1.1.1.1"))


def test_what_is_refused_by_one_rule_does_not_count_for_another():
    """Or somebody who is over one limit would lose the others as well."""
    clock = ManualClock()
    slow = RateSettings(name="slow", by="address", requests=1, period_s=10, path="/slow")
    made = limiter(clock, RateSettings(name="all", by="address", requests=3, period_s=100), slow)
    assert passes(lambda: made.before("/slow", "GET", "1.1.1.1"))
    assert sum(passes(lambda: made.before("/slow", "GET", "1.1.1.1")) for _ in range(50)) == 0
    assert sum(passes(lambda: made.before("/", "GET", "1.1.1.1")) for _ in range(5)) == 2


def test_clients_are_told_how_they_stand():
    """RateLimit-Policy and RateLimit as the IETF's draft has them, and when to come back."""
    clock = ManualClock()
    made = limiter(clock, RateSettings(name="api", by="address", requests=60, period_s=60, burst=3))
    told = [dict(standing.headers()) for _ in range(3) if (standing := made.before("/", "GET", "1.1.1.1")) is not None]
    assert {each[b"ratelimit-policy"] for each in told} == {b'"api";q=60;w=60'}
    assert [each[b"ratelimit"] for each in told] == [b'"api";r=2;t=1', b'"api";r=1;t=2', b'"api";r=0;t=3']
    with pytest.raises(HttpRefusal) as refused:
        made.before("/", "GET", "1.1.1.1")
    assert header(refused.value, b"retry-after") == b"1"
    assert header(refused.value, b"ratelimit").startswith(b'"api";r=0;t=')


# Several gateways


class Together:
    """A store in memory; may be down."""

    def __init__(self, clock: ManualClock) -> None:
        self.arrivals = Arrivals()
        self.clock = clock
        self.down = False
        self.asked = 0
        self.heard = asyncio.Event()

    async def spend(self, costs_s: Mapping[str, float], /) -> Mapping[str, float]:
        self.asked += 1
        self.heard.set()
        if self.down:
            raise ConnectionRefusedError("nobody there")
        return self.arrivals.spend(costs_s, self.clock.monotonic())

    async def close(self) -> None: ...


async def test_gateways_that_share_let_through_what_one_would(caplog: pytest.LogCaptureFixture):
    """What both let through in one moment stands against the client; over time the rate is that of one gateway."""
    clock = ManualClock()
    store = Together(clock)
    rule = RateSettings(name="a", by="address", requests=10, period_s=1, burst=5)
    shared = [Sharing(store, clock) for _ in range(3)]
    gateways = [limiter(clock, rule, sharing=each) for each in shared]

    def flood() -> int:
        return sum(passes(lambda g=g: g.before("/", "GET", "1.1.1.1")) for g in gateways for _ in range(30))

    assert flood() == 15, "none has heard of the others yet"
    admitted = 0
    for _ in range(100):
        for each in shared:
            await each.tell()
        for each in shared:
            await each.tell()
        clock.advance(0.1)
        admitted += flood()
    assert 90 <= admitted <= 115, "ten seconds at ten a second"
    assert not caplog.records


async def test_a_store_that_is_down_leaves_each_to_itself_and_says_so_once(caplog: pytest.LogCaptureFixture):
    """Nobody is refused for it, nobody has no limit, and when it is back it counts again."""
    clock = ManualClock()
    store = Together(clock)
    shared = Sharing(store, clock)
    made = limiter(clock, RateSettings(name="a", by="address", requests=5), sharing=shared)
    store.down = True
    for _ in range(3):
        clock.advance(1)
        assert sum(passes(lambda: made.before("/", "GET", "1.1.1.1")) for _ in range(30)) == 5
        await shared.tell()
    assert [record.message.partition(":")[0] for record in caplog.records] == ["SL6301"]
    store.down = False
    clock.advance(1)
    assert passes(lambda: made.before("/", "GET", "1.1.1.1"))
    await shared.tell()
    assert not shared.down
    assert store.arrivals.ahead_s("a 1.1.1.1", clock.monotonic()) > 0


async def test_no_request_waits_for_the_store():
    """Counting never awaits; the store is asked a few times a second however many requests come."""
    clock = ManualClock()
    store = Together(clock)
    shared = Sharing(store, clock)
    made = limiter(clock, RateSettings(name="a", by="address", requests=100_000), sharing=shared)
    await made.open()
    for _ in range(5000):
        made.before("/", "GET", "1.1.1.1")
    assert store.asked == 0
    async with asyncio.timeout(10):
        await store.heard.wait()
    await made.close()
    assert store.asked <= 2


# Quotas


@pytest.fixture
async def make_quotas(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Quotas in one file, as several gateways have them."""
    opened: list[Quotas] = []

    async def make(clock: ManualClock, *settings: QuotaSettings) -> tuple[Quotas, Limiter]:
        quotas = Quotas(settings, Database(sqlite_url(tmp_path, "gateway"), "gateway"), clock)
        await quotas.open()
        opened.append(quotas)
        return quotas, Limiter(LimitsSettings(), clock, quotas=quotas)

    yield make
    for each in opened:
        await each.close()


async def use(made: Limiter, times: int, user: User | None = ADA) -> int:
    """How many got through."""
    got = 0
    for _ in range(times):
        try:
            await made.use_quota("/", "GET", "1.1.1.1", user, "key")
        except HttpRefusal:
            continue
        got += 1
    return got


async def test_a_quota_outlives_the_process_and_ends_with_the_day(make_quotas: Callable[..., Any]):
    """What was used is still used after a restart; at midnight in UTC it begins anew."""
    clock = ManualClock(datetime(2026, 1, 31, 23, 59, 0, tzinfo=UTC))
    daily = QuotaSettings(name="day", by="key", requests=5)
    quotas, made = await make_quotas(clock, daily)
    assert await use(made, 3) == 3
    await quotas.close()
    _, made = await make_quotas(clock, daily)
    assert await use(made, 10) == 2
    with pytest.raises(HttpRefusal) as refused:
        await made.use_quota("/", "GET", "1.1.1.1", ADA, "key")
    assert header(refused.value, b"retry-after") == b"60"
    assert await use(made, 3, User("bob", client="key-2")) == 3
    clock.advance(61)
    assert await use(made, 10) == 5


async def test_gateways_share_a_quota(make_quotas: Callable[..., Any]):
    """Each hears what the others let through when it writes."""
    clock = ManualClock()
    monthly = QuotaSettings(name="month", by="tenant", requests=10, period="month")
    (first, one), (second, two) = await make_quotas(clock, monthly), await make_quotas(clock, monthly)
    assert await use(one, 4) + await use(two, 4) == 8
    for each in (first, second, first):
        await each.write()
    await use(one, 1)
    await first.write()
    await use(two, 1)
    await second.write()
    await first.write()
    assert await use(two, 5) == 0


@pytest.mark.parametrize(
    ("now", "day", "month"),
    [
        (datetime(2026, 12, 31, 23, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2028, 2, 28, 1, tzinfo=UTC), datetime(2028, 2, 29, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC)),
    ],
)
def test_days_and_months_end_where_the_calendar_says(now: datetime, day: datetime, month: datetime, tmp_path: Path):
    """Also in leap years, and at the end of one."""
    daily = QuotaSettings(name="d", by="key", requests=1)
    monthly = QuotaSettings(name="m", by="key", requests=1, period="month")
    made = Quotas([daily, monthly], Database(sqlite_url(tmp_path, "gateway"), "gateway"), ManualClock(now))
    ends = [quota.period(now)[1] for quota in made.all]
    assert ends == [int(day.timestamp()), int(month.timestamp())]
    assert day - now <= timedelta(days=1)


async def test_a_database_that_is_gone_stops_nobody(make_quotas: Callable[..., Any], caplog: pytest.LogCaptureFixture):
    """What is counted meanwhile is kept in memory, still bounds, and is written when it is back."""
    clock = ManualClock()
    quotas, made = await make_quotas(clock, QuotaSettings(name="day", by="key", requests=5))
    failing = Failing()
    database, quotas._database = quotas._database, failing
    assert await use(made, 10) == 5
    await quotas.write()
    await quotas.write()
    assert len(caplog.records) == 1
    quotas._database = database
    await quotas.write()
    assert not quotas.down
    assert await use(made, 10) == 0


class Failing:
    """A database that is not there."""

    def read(self) -> Any:
        raise ConnectionRefusedError("gone")

    transaction = read


# Settings


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ('shared = "memcached://x"', "shared names no store"),
        ('[[limits.rates]]\nname = "a"\nby = "address"\nrequests = 0', "lets nothing through"),
        ('[[limits.rates]]\nname = "a b"\nby = "address"\nrequests = 1', "name is 'a b'"),
        ('[[limits.rates]]\nname = "a"\nby = "address"\nrequests = 1\npath = "x"', "path is 'x'"),
        ('[[limits.rates]]\nname = "a"\nby = "planet"\nrequests = 1', "'planet' is not one of the choices"),
        (
            "\n".join(f'[[limits.{kind}]]\nname = "a"\nby = "user"\nrequests = 1' for kind in ("rates", "quotas")),
            "name is 'a'",
        ),
    ],
)
def test_rules_that_cannot_be_are_errors_before_the_start(text: str, fact: str, tmp_path: Path):
    """One sentence each, with the place."""
    (tmp_path / "seamline.toml").write_text(f'[app]\nname = "a"\n[limits]\n{text}\n', encoding="utf-8")
    with pytest.raises(BadValueError, match=fact):
        Settings.load(tmp_path, {})


# Stores of other machines


@pytest.fixture
async def redis_url(tmp_path: Path) -> AsyncIterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("Redis is not installed: apt-get install redis-server")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    process = await asyncio.create_subprocess_exec(program, *options, stdout=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(20):
            await reachable(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        await process.wait()


async def reachable(port: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            await writer.wait_closed()
            return
        await asyncio.sleep(0.02)


async def adds_up(one: Store, two: Store) -> None:
    """Both tell of the same names at once; the sums are whole, and nobody's name is another's."""
    asked = [each.spend({"a": 30.0, f"own {number}": 10.0}) for number, each in enumerate([one, two] * 10)]
    await asyncio.gather(*asked)
    ahead = await one.spend({"a": 1.0, "own 3": 0.0, "new": 5.0})
    assert 550 < ahead["a"] <= 601
    assert 5 < ahead["own 3"] <= 10
    assert 4.5 < ahead["new"] <= 5


async def takes_any_name(store: Store) -> None:
    """Whatever an identity provider calls somebody, their limit is shared and the store is not taken for down."""
    clock = ManualClock()
    for user in (User("a\0b"), User("\ud800"), User("x" * 5000), User("é \n;--'\""), User("")):
        shared = [Sharing(store, clock), Sharing(store, clock)]
        rule = RateSettings(name="user", by="user", requests=1, period_s=100)
        one, two = (limiter(clock, rule, sharing=each) for each in shared)
        assert passes(lambda one=one, user=user: one.after("/", "GET", "1.1.1.1", user, "token"))
        await shared[0].tell()
        assert passes(lambda two=two, user=user: two.after("/", "GET", "1.1.1.1", user, "token")), "not heard of yet"
        await shared[1].tell()
        assert not any(each.down for each in shared)
        clock.advance(110)
        assert passes(lambda one=one, user=user: one.after("/", "GET", "1.1.1.1", user, "token"))
        assert not passes(lambda two=two, user=user: two.after("/", "GET", "1.1.1.1", user, "token")), "it is in debt"


@pytest.mark.needs_server
async def test_redis_adds_up(redis_url: str):
    """In one step each, by the clock of Redis; a Redis that is away is an error that is understood."""
    one, two = RedisStore(redis_url), RedisStore(redis_url)
    await adds_up(one, two)
    await takes_any_name(one)
    await one.close()
    await two.close()
    gone = RedisStore("redis://127.0.0.1:1/0")
    with pytest.raises(SharedStoreError):
        await gone.spend({"a": 1.0})
    await gone.close()


@pytest.mark.needs_server
async def test_postgresql_adds_up(postgres_server: PostgresqlServer):
    """In one statement each; names of several gateways in any order do not deadlock."""
    url = postgres_server.url()
    one, two = PostgresqlStore(Database(url, "gateway")), PostgresqlStore(Database(url, "gateway"))
    await adds_up(one, two)
    names = [f"n{number}" for number in range(50)]
    forth, back = dict.fromkeys(names, 1.0), dict.fromkeys(reversed(names), 1.0)
    async with asyncio.timeout(60):
        await asyncio.gather(*(each.spend(costs) for each in (one, two) for costs in (forth, back) for _ in range(10)))
    assert (await one.spend({"n7": 0.0}))["n7"] > 30
    await takes_any_name(one)
    await one.close()
    await two.close()
