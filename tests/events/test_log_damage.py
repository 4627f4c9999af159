"""Damage under the log: bits flipped and bytes cut off. It is found and named; no event is served as another one."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.events.log_rig import everything, record, sqlite_place

from seamline.events.errors import DamagedLogError
from seamline.events.log.tables import damaged
from seamline.events.record import Record
from seamline.kernel.store.errors import StoreError

FILE = "orders.sqlite3"
COUNT = 40


async def a_life(folder: Path, count: int = COUNT) -> list[Record]:
    """Some events, in a file whose WAL has not been moved into it: as a killed process leaves it."""
    said = [record(n, key=f"k{n % 3}") for n in range(count)]
    async with sqlite_place(folder).open() as (_, log):
        for each in said:
            await log.append([each])
        (folder / "killed").mkdir()
        for path in (folder / "db").iterdir():
            if not path.name.endswith("-shm"):
                (folder / "killed" / path.name).write_bytes(path.read_bytes())
    return said


def found_as(folder: Path, files: dict[str, bytes]) -> None:
    (folder / "db").mkdir(parents=True)
    for name, content in files.items():
        (folder / "db" / name).write_bytes(content)


def flips(content: bytes, where: Sequence[int], seed: int) -> Iterator[bytes]:
    lots = random.Random(seed)
    for at in where:
        spoilt = bytearray(content)
        spoilt[at] ^= 1 << lots.randrange(8)
        yield bytes(spoilt)


async def test_a_wal_cut_off_or_flipped_anywhere_serves_a_beginning_of_the_log(tmp_path: Path):
    """At places all over the last commits of the WAL: what is served is what was said, up to some point."""
    await attack_wal(tmp_path, 60)


@pytest.mark.torture
async def test_a_wal_cut_off_or_flipped_at_every_byte_serves_a_beginning_of_the_log(tmp_path: Path):
    await attack_wal(tmp_path, 100_000)


async def attack_wal(folder: Path, places: int) -> None:
    said = await a_life(folder)
    main, wal = (folder / "killed" / FILE).read_bytes(), (folder / "killed" / f"{FILE}-wal").read_bytes()
    tail = range(len(wal) - 3 * (4096 + 24), len(wal))
    lots = random.Random(7)
    where = tail if len(tail) <= places else sorted(lots.sample(tail, places))
    states = [*flips(wal, where, 1), *(wal[:at] for at in where)]
    for number, spoilt in enumerate(states):
        place = folder / str(number)
        found_as(place, {FILE: main, f"{FILE}-wal": spoilt})
        async with sqlite_place(place).open() as (_, log):
            found = await everything(log)
        assert found == said[: len(found)]
        assert len(found) >= COUNT - 4  # only the commits that were touched, and those after them


async def test_a_file_flipped_anywhere_is_found_out(tmp_path: Path):
    """At places all over the log's pages: whatever is served is right, and what is missing is reported."""
    await attack_file(tmp_path, 150)


@pytest.mark.torture
async def test_a_file_flipped_at_every_byte_is_found_out(tmp_path: Path):
    await attack_file(tmp_path, 100_000)


async def attack_file(folder: Path, places: int) -> None:
    said = await a_life(folder)
    main = (folder / "db" / FILE).read_bytes()  # the last connection has moved the WAL into it
    with closing(sqlite3.connect(folder / "db" / FILE)) as connection:
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'seamline_log'").fetchone()[0]
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    body = [at for at in range((root - 1) * 4096, pages * 4096) if holds_events(main, at)]
    where = body if len(body) <= places else sorted(random.Random(3).sample(body, places))
    reported = 0
    for number, spoilt in enumerate(flips(main, where, 2)):
        place = folder / str(number)
        found_as(place, {FILE: spoilt})
        served, complaint = await read_all(place)
        assert all(each in said for each in served), f"byte {where[number]}: an event is served that was never said"
        if served != said:
            assert complaint, f"byte {where[number]}: events are missing and nobody says so"
        reported += bool(complaint)
    assert reported > len(where) / 4


def holds_events(content: bytes | bytearray, at: int) -> bool:
    return b"event-" in content[at // 4096 * 4096 : at // 4096 * 4096 + 4096]


async def read_all(place: Path) -> tuple[list[Record], bool]:
    """What readers are served, and whether reading or verifying complains."""
    served: list[Record] = []
    try:
        async with sqlite_place(place).open() as (_, log):
            try:
                after = 0
                while page := await log.read(after, limit=5):
                    served += [each.record for each in page]
                    after = page.through
            except (DamagedLogError, StoreError):
                return served, True
            return served, bool(await log.verify())
    except StoreError:
        return served, True


async def test_a_damaged_record_is_named_and_set_aside(tmp_path: Path):
    """Readers get what lies before it, then an error that names it; repaired, the log goes on without it, what was
    set aside can be looked at, and the newest offsets are not used again."""
    said = await a_life(tmp_path)
    spoil(tmp_path, "UPDATE seamline_log SET body = replace(body, 'event', 'EVENT') WHERE position IN (7, 40)")
    spoil(tmp_path, "UPDATE seamline_log SET partition = 15 - partition WHERE position = 20")
    spoil(tmp_path, "UPDATE seamline_log SET time_ms = 'abc' WHERE position = 21")
    async with sqlite_place(tmp_path).open() as (database, log):
        page = await log.read(0)
        assert [each.record for each in page] == said[:6]
        assert page.through == 6
        with pytest.raises(DamagedLogError, match=r"offset 7 .*seamline events repair orders"):
            await log.read(page.through)
        with pytest.raises(DamagedLogError, match="offset 7"):
            await log.read(page.through, types=frozenset({"Rare"}), partitions=[15])
        assert [each.first for each in await log.verify()] == [7, 20, 21, 40]
        assert [each.first for each in await log.set_aside()] == [7, 20, 21, 40]
        assert await log.verify() == []
        assert await everything(log) == [each for n, each in enumerate(said, 1) if n not in {7, 20, 21, 40}]
        await log.append([record(99)])
        assert (await log.ends()).last == 41
        async with database.read() as r:
            kept = (await r.execute(select(damaged.c.position, damaged.c.body))).all()
        assert [position for position, _ in kept] == [7, 20, 21, 40]
        assert b"EVENT-6" in kept[0].body


async def test_damaged_pages_are_read_around(tmp_path: Path):
    """A whole page of noise: reading and verifying complain; repaired, every other event is served, what is lost is
    named, and the log goes on."""
    said = await a_life(tmp_path, 300)
    path = tmp_path / "db" / FILE
    content = bytearray(path.read_bytes())
    pages = [at for at in range(0, len(content), 4096) if holds_events(content, at)]
    assert len(pages) > 2
    content[pages[1] : pages[1] + 4096] = random.Random(1).randbytes(4096)
    path.write_bytes(content)
    served, complaint = await read_all(tmp_path)
    assert complaint
    assert served == said[: len(served)]
    async with sqlite_place(tmp_path).open() as (_, log):
        lost = await log.set_aside()
        assert lost
        gone = {at for each in lost for at in range(each.first, each.last + 1)}
        assert 0 < len(gone) < 300
        assert await everything(log) == [each for n, each in enumerate(said, 1) if n not in gone]
        assert await log.verify() == []
        await log.append([record(99)])
        assert (await log.ends()).last == 300 + 1
        assert (await everything(log))[-1].id == "event-99"


def spoil(folder: Path, sql: str) -> None:
    with closing(sqlite3.connect(folder / "db" / FILE)) as connection:
        assert connection.execute(sql).rowcount
        connection.commit()
