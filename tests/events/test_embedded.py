"""The log read over the mesh: by several processes, through kills, freezes, moves and refusals."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.events.consumer_process import POINTS
from tests.events.shop import Process, Returned, Sold, running, shop, until, write

from seamline.events.context import EventContext
from seamline.events.fences import leases
from seamline.kernel.store import Database
from seamline.mesh.identity import CertificateAuthority, WorkloadIdentity, new_key_and_csr
from seamline.module import Module

ROOT = Path(__file__).parents[2]


def books() -> Module:
    module = Module("books")

    @module.on(Sold, concurrency=8)
    async def enter(event: Sold, db: Database) -> None:
        await write(db, event.sku, event.number)

    return module


async def publish(process: Process, first: int, last: int, keys: int = 20) -> None:
    await process.events.publish_all([Sold(sku=f"sku{n % keys}", number=n) for n in range(first, last)])


def check_effects(rows: list[tuple[str, int]], count: int) -> None:
    """Each once, and those of a key in order."""
    assert sorted(number for _, number in rows) == list(range(count))
    by_key: defaultdict[str, list[int]] = defaultdict(list)
    for sku, number in rows:
        by_key[sku].append(number)
    assert all(numbers == sorted(numbers) for numbers in by_key.values())


@contextlib.asynccontextmanager
async def consuming(folder: Path, *words: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A process of its own that hosts both modules."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.events.consumer_process", str(folder), *words,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def said(process: asyncio.subprocess.Process, word: str) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while line := await process.stdout.readline():
            if line.decode().strip() == word:
                return
    pytest.fail(f"the process ended without saying {word!r}")


async def test_killed_at_every_point_of_a_commit_each_effect_is_there_once(tmp_path: Path):
    """One process for each point, killed there; another does what is left, and is killed too; then the rest."""

    async def killed(point: str, count: int) -> None:
        async with consuming(tmp_path / point, point, str(count)) as process, asyncio.timeout(60):
            assert await process.wait() == -signal.SIGKILL

    for point in POINTS:
        async with running(tmp_path / point, shop()) as process:
            await publish(process, 0, 120)
    rare = {"positions", "forgotten", "flushed"}
    await asyncio.gather(*(killed(point, 1 if point in rare else 30) for point in POINTS))
    for point in POINTS:
        async with running(tmp_path / point, shop(), books()) as process:
            await publish(process, 120, 130)
            await until(lambda process=process: process.count_is(130))
            check_effects(await process.rows(), 130)


async def test_a_process_frozen_past_its_lease_has_no_second_effect_when_it_goes_on(tmp_path: Path):
    """It is stopped while it handles; what it then commits is refused, and it takes part again."""
    async with running(tmp_path, shop()) as process:
        await publish(process, 0, 40)
    async with consuming(tmp_path, "frozen") as frozen:
        await said(frozen, "frozen")
        async with running(tmp_path, shop(), books()) as process:
            await until(lambda: process.count_is(40))
            frozen.send_signal(signal.SIGCONT)
            await publish(process, 40, 400)
            await until(lambda: process.count_is(400))
            await until(lambda: _shares(process))
            await publish(process, 400, 800)
            await until(lambda: process.count_is(800))
            check_effects(await process.rows(), 800)
            assert process.handled() < 800


async def _shares(process: Process) -> bool:
    """Whether another process has a part of the partitions."""
    async with process.databases["books"].read() as r:
        rows = (await r.execute(leases.select().where(leases.c.name == "books.enter@shop"))).all()
    return len({row.member for row in rows}) == 2


async def test_processes_that_come_and_go_share_the_work(tmp_path: Path):
    """While events are published; each takes effect once."""
    first = Process(tmp_path, [shop(), books()])
    await first.start()
    second = Process(tmp_path, [shop(), books()])
    third = Process(tmp_path, [shop(), books()])
    try:
        await publish(first, 0, 300)
        await second.start()
        await until(lambda: _shares(first))
        await publish(first, 300, 900, keys=200)
        await until(lambda: second.handled() > 50)
        await first.stop()
        await third.start()
        await publish(second, 900, 1500, keys=200)
        await until(lambda: second.count_is(1500))
        check_effects(sorted(await second.rows(), key=lambda row: 0), 1500)
    finally:
        for process in (first, second, third):
            with contextlib.suppress(Exception):
                await process.stop()


class Land:
    """Identities for processes that speak over the mesh."""

    def __init__(self, folder: Path) -> None:
        self._authority = CertificateAuthority.load_or_create(folder / "ca", "test.local", "test")

    def identity(self, module: str) -> WorkloadIdentity:
        identity = WorkloadIdentity("test.local", "test")
        identity.set_bundle(self._authority.bundle_pem)
        key, request = new_key_and_csr()
        identity.install(module, key, self._authority.issue(request, module, 3600))
        return identity


async def test_a_consumer_outlives_the_restart_and_the_move_of_its_producer(tmp_path: Path):
    """Over mutual TLS; the producer comes back at another address."""
    land = Land(tmp_path)
    async with running(tmp_path, books(), identity=land.identity("books")) as consumer:
        for turn in range(3):
            async with running(tmp_path, shop(), identity=land.identity("shop")) as producer:
                consumer.mesh.set_endpoints({"shop": [await producer.listen()]})
                await publish(producer, turn * 100, turn * 100 + 100)
                await until(lambda turn=turn: consumer.count_is(turn * 100 + 100))
                producer.runtime.log_service("shop").end()
        check_effects(await consumer.rows(), 300)


async def test_a_page_is_cut_where_it_would_not_fit_a_frame(tmp_path: Path):
    """Large events arrive, too."""
    land = Land(tmp_path)
    async with (
        running(tmp_path, books(), identity=land.identity("books")) as consumer,
        running(tmp_path, shop(), identity=land.identity("shop")) as producer,
    ):
        consumer.mesh.set_endpoints({"shop": [await producer.listen()]})
        for number in range(12):
            await producer.events.publish(Sold(sku="x" * 900_000, number=number))
        await until(lambda: consumer.count_is(12))


async def test_who_may_not_read_a_modules_events_reads_none(tmp_path: Path):
    """In one process as in many; what was published meanwhile is there once it may."""
    forbidden = 'permit(principal, action == Action::"http", resource);'
    async with running(tmp_path, shop(), books(), policy=forbidden) as process:
        await publish(process, 0, 10)
        await asyncio.sleep(0.2)
        assert await process.count() == 0
    async with running(tmp_path, shop(), books()) as process:
        await until(lambda: process.count_is(10))


async def test_a_replay_hands_out_again_what_was_handled_and_says_so(tmp_path: Path):
    """Also where two processes have the group: what the other has under way is not kept."""
    seen: list[bool] = []

    def noting() -> Module:
        module = Module("books")

        @module.on(Sold)
        async def enter(event: Sold, context: EventContext, db: Database) -> None:
            seen.append(context.replayed)
            await write(db, event.sku, event.number)

        return module

    async with running(tmp_path, shop(), noting()) as first, running(tmp_path, shop(), noting()) as second:
        await publish(first, 0, 50, keys=50)
        await until(lambda: first.count_is(50))
        assert not any(seen)
        await second.runtime.admin("replay", {"module": "books", "group": "enter", "start": "11"})
        await until(lambda: first.count_is(90))
        assert seen.count(True) == 40
        await publish(first, 50, 60)
        await until(lambda: first.count_is(100))
        assert seen[-10:] == [False] * 10
        assert sorted({number for _, number in (await first.rows())[50:90]}) == list(range(10, 50))
        (lag,) = await first.runtime.admin("lag", {"module": "books"})
        await until(lambda: _no_lag(first))
        assert lag["topic"] == "shop"


async def _no_lag(process: Process) -> bool:
    (lag,) = await process.runtime.admin("lag", {"module": "books"})
    return lag["events"] == 0


async def test_the_lag_counts_what_was_not_handled(tmp_path: Path):
    """And how old the oldest of it is."""
    books, gate = Module("books"), asyncio.Event()

    @books.on(Sold, concurrency=1)
    async def enter(event: Sold) -> None:
        await gate.wait()

    async with running(tmp_path, shop(), books) as process:
        await publish(process, 0, 30)
        await until(lambda: process.runtime.stats()["consumers"][0]["working"] == 1)
        (lag,) = await process.runtime.admin("lag", {"module": "books"})
        assert lag["events"] == 30
        assert lag["oldest_s"] >= 0
        gate.set()
        await until(lambda: _no_lag(process))


async def test_groups_that_wait_at_the_end_of_a_log_share_one_read_of_what_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each is handed its own types, and nothing of a burst larger than a page is passed over."""
    module = Module("books")
    heard: defaultdict[int, list[int]] = defaultdict(list)
    for number in range(6):

        @module.on(Sold, group=f"group{number}")
        async def hear(event: Sold, number: int = number) -> None:
            heard[number].append(event.number)

    @module.on(Returned, group="returns")
    async def back(event: Returned) -> None:
        heard[-1].append(1)

    async with running(tmp_path, shop(), module) as process:
        await until(process.joined)
        log = process.runtime.logs["shop"]
        await process.events.publish(Sold(sku="mug", number=-1))
        await until(lambda: process.handled() == 6)
        read, reads = log.read, 0

        async def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal reads
            reads += 1
            return await read(*arguments, **named)

        monkeypatch.setattr(log, "read", counted)
        await process.events.publish(Sold(sku="mug", number=0))
        await until(lambda: process.handled() == 12)
        assert reads <= 2
        await process.events.publish_all([Sold(sku=f"sku{n % 7}", number=n) for n in range(1, 1000)])
        await process.events.publish(Returned(sku="mug"))
        await until(lambda: process.handled() == 12 + 6 * 999 + 1)
    assert all(sorted(heard[number]) == list(range(-1, 1000)) for number in range(6))
    assert heard[-1] == [1]
