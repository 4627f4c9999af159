"""The telemetry store under attack: killed anywhere, starved of room, flooded, given rubbish to open."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.observe.stored import NOW, S, add, clock, opened, trace

from seamline.kernel.settings.observe import MIB, ObserveSettings
from seamline.observe.errors import QueryTooLongError, TelemetryMissingError
from seamline.observe.records import Batch, Log, Source
from seamline.observe.store import TelemetryReader
from seamline.observe.store.keeping import fair_level
from seamline.observe.store.query import LogQuery, TraceQuery
from seamline.observe.store.schema import HOT, VERSION

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.observe.store_child"]


def killed_after(folder: Path, lines: int, *, files: int) -> dict[str, int]:
    """Let a process write, kill it in the middle, and say which traces it had committed, each with its spans.

    It is killed after so many lines of its output, and not before it has sealed so many files.
    """
    before = len(sealed(folder))
    process = subprocess.Popen([*COMMAND, "write", str(folder)], stdout=subprocess.PIPE, cwd=ROOT, text=True)
    committed: dict[str, int] = {}
    try:
        assert process.stdout is not None
        while lines > 0 or len(sealed(folder)) < before + files:
            line = process.stdout.readline()
            assert line
            lines -= 1
            committed |= {id_: int(count) for id_, _, count in (each.partition(":") for each in line.split())}
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    for line in process.stdout:  # what it said before it died
        if line.endswith("\n"):
            committed |= {id_: int(count) for id_, _, count in (each.partition(":") for each in line.split())}
    process.stdout.close()
    return committed


def sealed(folder: Path) -> list[Path]:
    return list(folder.glob("history/*.parquet"))


def check_whole(folder: Path, committed: dict[str, int]) -> None:
    with sqlite3.connect(folder / HOT) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    reader = TelemetryReader(folder, timeout_s=60)
    some = dict(random.Random(4).sample(sorted(committed.items()), min(200, len(committed))))
    for id_, count in (some | dict(list(committed.items())[-100:])).items():
        spans = reader.trace(id_)
        assert len(spans) == count, id_
        assert len({span.span_id for span in spans}) == count
    said = Counter[str]()
    cursor = ""
    while True:
        page = reader.logs(LogQuery(limit=1000, cursor=cursor))
        said.update(line.message for line in page.items)
        cursor = page.next
        if not cursor:
            break
    assert all(said[f"trace {id_}"] == 1 for id_ in committed)
    reader.close()


def sweep(folder: Path, kills: int, seed: int) -> None:
    lot = random.Random(seed)
    committed: dict[str, int] = {}
    for number in range(kills):
        committed |= killed_after(folder, lot.randrange(1, 90), files=number % 3)
        check_whole(folder, committed)
    assert sealed(folder)


def test_a_kill_anywhere_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    """Killed while it writes, seals and deletes: the file is whole, and every committed trace and line is there once,
    with all of its spans, in SQLite or in history."""
    sweep(tmp_path, kills=4, seed=1)


@pytest.mark.torture
def test_sixty_kills_lose_nothing_that_was_committed(tmp_path: Path) -> None:
    """The same sixty times over on one store."""
    sweep(tmp_path, kills=60, seed=2)


def test_a_full_disk_costs_telemetry_only_and_is_said(tmp_path: Path) -> None:
    """Where nothing can be written, telemetry is dropped, counted and said; with room again it is kept again, what was
    kept before is whole, and the change is marked."""
    done = subprocess.run(
        [*COMMAND, "starve", str(tmp_path)], capture_output=True, cwd=ROOT, text=True, timeout=120, check=True
    )
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert "telemetry is dropped" in said["trouble"]
    assert int(said["dropped"]) > 0
    state, last, _ = said["again"].rsplit(" ", 2)
    assert state == "kept"
    reader = TelemetryReader(tmp_path)
    assert reader.trace(last)
    size = reader.size()
    assert size.spans > 1_000
    assert size.dropped["spans"] == int(said["dropped"])
    assert any("kept again" in mark.title for mark in reader.marks(0, 0))
    reader.close()
    with sqlite3.connect(tmp_path / HOT) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


async def test_a_flood_of_one_module_does_not_drive_out_the_others(tmp_path: Path) -> None:
    """At the limit of size the noisy module loses its own past; the quiet ones keep every trace and line, and all
    together stays within the limit."""
    time = clock()
    settings = ObserveSettings(size_max_mb=16)
    quiet = [trace(number, NOW, module="quiet") for number in range(300)]
    lines = [Log(NOW, 9, "quiet", f"quiet line {number}") for number in range(300)]
    with opened(tmp_path, settings, time) as (store, reader):
        add(store, [span for spans in quiet for span in spans], lines)
        for begin in range(0, 30_000, 2_000):
            time.advance(1)
            noise = [span for number in range(begin, begin + 2_000) for span in trace(number, store.now_ns(), seed=9,
                     module="noisy")]  # fmt: skip
            loud = [Log(store.now_ns(), 9, "noisy", f"{number:x}" * 20) for number in range(begin, begin + 2_000)]
            for half in (noise[::2], noise[1::2]):
                add(store, half)
            add(store, logs=loud)
            if begin % 10_000 == 0:
                await store.tend()
        await store.tend()
        assert store.trouble == ""
        assert store.dropped == {}
        size = reader.size()
        assert size.bytes_by_module["noisy"] < 16 * MIB
        assert held(tmp_path) <= 16 * MIB
        for spans in quiet:
            assert len(reader.trace(spans[0].trace_id.hex())) == len(spans)
        assert len(reader.logs(LogQuery(module="quiet", limit=1000)).items) == 300
        newest = trace(29_999, 0, seed=9, module="noisy")
        assert len(reader.trace(newest[0].trace_id.hex())) == len(newest)
        for row in reader.traces(TraceQuery(module="noisy", limit=1000)).items:
            assert row.rooted  # no trace was deleted by half


def held(folder: Path) -> int:
    """Bytes, without the log that SQLite keeps until the next checkpoint."""
    return sum(each.stat().st_size for each in folder.rglob("*") if each.suffix in {".db", ".parquet"})


def test_a_share_is_fair() -> None:
    """The level cuts the largest only, and what it leaves is no more than may be kept."""
    assert fair_level({"a": 10, "b": 20, "c": 1000}, 130) == 100
    assert fair_level({"a": 10, "b": 20}, 100) == 20
    assert fair_level({"a": 50, "b": 50}, 60) == 30
    assert fair_level({}, 5) == 0
    lot = random.Random(3)
    for _ in range(500):
        held = {number: lot.randrange(1, 1000) for number in range(lot.randrange(1, 8))}
        most = lot.randrange(0, 3000)
        level = fair_level(held, most)
        assert sum(min(each, level) for each in held.values()) <= max(most, 0) or level == max(held.values())


async def test_history_is_kept_within_its_age_and_the_size(tmp_path: Path) -> None:
    """Files older than ``history_days`` go, and the oldest where they are too many."""
    time = clock()
    settings = ObserveSettings(hot_s=60, keep_traces=1, history_days=1, size_max_mb=16)
    with opened(tmp_path, settings, time) as (store, reader):
        for hour in range(10):
            add(store, trace(hour, store.now_ns()))
            time.advance(3 * 3600)
            await store.tend()
        files = list((tmp_path / "history").iterdir())
        assert 8 <= len(files) <= 9
        assert reader.trace(trace(0, 0)[0].trace_id.hex()) == []
        assert reader.trace(trace(9, 0)[0].trace_id.hex()) != []
        with sqlite3.connect(tmp_path / HOT) as connection:
            connection.execute("UPDATE files SET bytes = ?", (2 * MIB,))
        connection.close()
        await store.tend()
        assert len(list((tmp_path / "history").iterdir())) == 7
        assert reader.trace(trace(9, 0)[0].trace_id.hex()) != []


async def test_without_duckdb_nothing_is_sealed_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is recent stays until it is as old as history would be, and then it goes."""

    def nothing(_: str) -> None:
        return None

    monkeypatch.setattr("importlib.util.find_spec", nothing)
    time = clock()
    with opened(tmp_path, ObserveSettings(history_days=2), time) as (store, reader):
        given = trace(1, NOW)
        add(store, given, [Log(NOW, 9, "cart", "line")])
        time.advance(24 * 3600)
        for _ in range(3):
            await store.tend()
        assert reader.trace(given[0].trace_id.hex()) == given
        assert [each.message.count("seamline[history]") for each in caplog.records] == [1]
        time.advance(25 * 3600)
        await store.tend()
        assert reader.trace(given[0].trace_id.hex()) == []
        assert (reader.size().spans, reader.size().logs) == (0, 0)
        assert store.trouble == ""


@pytest.mark.parametrize("rubbish", ["text", "older", "foreign", "torn"])
def test_a_file_that_cannot_be_used_is_moved_aside_and_said(tmp_path: Path, rubbish: str) -> None:
    """Rubbish, the tables of another version or of somebody else, a torn file: a new one is begun, the old one kept."""
    path = tmp_path / HOT
    if rubbish == "text":
        path.write_bytes(b"this is no database" * 1000)
    elif rubbish == "foreign":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE somebody (elses INTEGER)")
        connection.close()
    else:
        with opened(tmp_path) as (store, _):
            add(store, trace(1, NOW))
        if rubbish == "older":
            with sqlite3.connect(path) as connection:
                connection.execute(f"PRAGMA user_version = {VERSION + 1}")
            connection.close()
        else:
            path.write_bytes(path.read_bytes()[:20] + b"\0" * 5000)
    with pytest.raises(TelemetryMissingError):
        TelemetryReader(tmp_path).size()
    with opened(tmp_path) as (store, reader):
        add(store, trace(2, NOW))
        assert reader.trace(trace(2, NOW)[0].trace_id.hex()) != []
        assert [mark.kind for mark in reader.marks(0, 0)] == ["other"]
        assert "moved aside" in reader.marks(0, 0)[0].title
        assert store.trouble == ""
    assert (tmp_path / f"{HOT}.aside").exists()


async def test_history_outlives_a_file_that_was_damaged(tmp_path: Path) -> None:
    """Where SQLite's file is begun anew, the Parquet files are taken over; what nobody registered is deleted."""
    time = clock()
    given = trace(1, NOW)
    with opened(tmp_path, ObserveSettings(keep_traces=1), time) as (store, reader):
        add(store, given, [Log(NOW, 9, "cart", "a line")])
        time.advance(7 * 3600)
        await store.tend()
        stray = tmp_path / "history" / "spans-1-2-3-4.parquet"
        stray.write_bytes(b"half")
        await store.tend()
        assert not stray.exists()
    (tmp_path / HOT).write_bytes(b"x" * 10_000)
    with opened(tmp_path, ObserveSettings(keep_traces=1), time) as (store, reader):
        (tmp_path / "history" / "spans-5.parquet").write_bytes(b"no parquet")
        await store.tend()
        assert reader.trace(given[0].trace_id.hex()) == given
        assert [each.message for each in reader.logs(LogQuery()).items] == ["a line"]
        assert len(list((tmp_path / "history").iterdir())) == 2


def test_damage_that_comes_while_it_runs_is_survived(tmp_path: Path) -> None:
    """A page that turns out broken costs what was kept, not what comes."""
    with opened(tmp_path) as (store, reader):
        for number in range(50):
            add(store, trace(number, NOW))
        store.ask(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()).result(10)
        with (tmp_path / HOT).open("r+b") as file:
            for page in range(1, (tmp_path / HOT).stat().st_size // 8192):
                file.seek(page * 8192)
                file.write(b"\xff" * 8192)
        store.ask(lambda connection: connection.execute("PRAGMA shrink_memory").fetchall()).result(10)
        for number in range(100, 110):
            add(store, trace(number, NOW))
        last = trace(109, NOW)
        assert reader.trace(last[0].trace_id.hex()) == last
        assert store.trouble == ""
    assert (tmp_path / f"{HOT}.aside").exists()


def test_a_queue_that_is_full_drops_and_counts_and_lets_the_quiet_in(tmp_path: Path) -> None:
    """Who floods the queue loses what is too much of it; a process that tells little still gets its spans kept."""
    hold = threading.Event()
    with opened(tmp_path) as (store, reader):
        store.ask(lambda _: hold.wait(30))
        flood = [trace(number, NOW, seed=4)[0] for number in range(1_000)]
        for _ in range(60):
            store.add(Batch(Source("flood"), NOW, S, spans=flood))
        quiet = trace(7, NOW, module="quiet")
        store.add(Batch(Source("quiet"), NOW, S, spans=quiet))
        assert store.full
        hold.set()
        store.flush(60)
        assert reader.trace(quiet[0].trace_id.hex()) == quiet
        assert 45_000 <= store.dropped["spans"] <= 55_000
        assert not store.full
        add(store)
        assert reader.size().dropped["spans"] == store.dropped["spans"]


def test_readers_see_whole_commits_while_it_is_written(tmp_path: Path) -> None:
    """Two readers in threads of their own, all the while: no error, and never a part of what was committed together."""
    ended, wrong = threading.Event(), list[Any]()
    with opened(tmp_path) as (store, reader):
        add(store)

        def looking() -> None:
            while not ended.is_set():
                try:
                    for row in reader.traces(TraceQuery(limit=20)).items:
                        if row.spans != len(trace(int(row.started_ns - NOW), NOW)):
                            wrong.append(row)
                    reader.logs(LogQuery(text="line"))
                    reader.graph(NOW - 60 * S, NOW)
                except Exception as error:
                    wrong.append(error)

        threads = [threading.Thread(target=looking) for _ in range(2)]
        for each in threads:
            each.start()
        for begin in range(0, 2_000, 50):
            spans = [span for number in range(begin, begin + 50) for span in trace(number, NOW + number)]
            add(store, spans, [Log(NOW, 9, "cart", "a line")])
        ended.set()
        for each in threads:
            each.join()
        assert wrong == []
        assert reader.size().logs == 40


async def test_a_question_that_takes_too_long_is_broken_off(tmp_path: Path) -> None:
    """Time is bounded, hot and in history, and the next question is answered."""
    time = clock()
    with opened(tmp_path, ObserveSettings(keep_traces=1), time) as (store, _):
        add(store, [span for number in range(3_000) for span in trace(number, NOW)])
        hurried = TelemetryReader(tmp_path, timeout_s=0.0)
        impossible = TraceQuery(attributes={"user": "u3", "paid": "true"}, slower_than_ms=10**9)
        with pytest.raises(QueryTooLongError):
            hurried.traces(replace(impossible, slower_than_ms=1, limit=1000))
        patient = TelemetryReader(tmp_path, timeout_s=30)
        assert patient.traces(impossible).items == []
        time.advance(7 * 3600)
        await store.tend()
        with pytest.raises(QueryTooLongError):
            hurried.trace(trace(1, NOW)[0].trace_id.hex())
        assert patient.traces(TraceQuery(limit=3)).items
        hurried.close()
        patient.close()


async def test_keeping_goes_on_by_itself(tmp_path: Path) -> None:
    """``keep`` seals by the clock, and ends when it is cancelled."""
    time = clock()
    with opened(tmp_path, ObserveSettings(keep_traces=1), time) as (store, reader):
        add(store, trace(1, NOW))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(store.keep())
            await asyncio.sleep(0)
            time.advance(7 * 3600)
            async with asyncio.timeout(30):
                while reader.size().history_spans == 0:
                    await asyncio.to_thread(store.flush)
            task.cancel()
