"""Labels that come later, and datasets of those who agreed."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from seamline.kernel.clock import ManualClock
from seamline.kernel.store import Database, sqlite_url
from seamline.models.watch.datasets import Dataset
from seamline.models.watch.errors import CaptureError
from seamline.models.watch.labels import Labels
from seamline.models.watch.reference import Reference
from seamline.models.watch.watcher import Watcher

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 3, 1, 12, tzinfo=UTC))


@pytest.fixture
async def labels(tmp_path: Path, clock: ManualClock) -> AsyncGenerator[Labels]:
    async with Database(sqlite_url(tmp_path, "shop"), "shop") as database:
        labels = Labels(database, "Fraud", clock, keep_s=86_400)
        await labels.prepare()
        yield labels


async def test_score_and_label_meet_in_any_order(labels: Labels):
    """A chargeback that comes before the score was written counts as one that comes a month later; a case with a label
    only, or a score only, counts for nothing; and what is said again changes nothing but the label."""
    await labels.labelled("early", came=True)
    await labels.predicted("early", "v1", 0.9)
    await labels.predicted("late", "v1", 0.2)
    await labels.predicted("late", "v2", 0.8)
    assert await labels.waiting() == 1
    await labels.labelled("late", came=True)
    await labels.labelled("late", came=False)
    await labels.labelled("only a label", came=True)
    await labels.predicted("only a score", "v1", 0.5)
    found = await labels.quality(LONG_AGO)
    assert found.keys() == {"v1"}
    assert (found["v1"].cases, found["v1"].positives, found["v1"].auc) == (2, 1, 1.0)


async def test_quality_is_by_version_and_time(labels: Labels, clock: ManualClock):
    """What became known before does not count, and no version pays for another."""
    for number in range(4):
        await labels.predicted(f"good {number}", "good", 0.9 if number % 2 else 0.1)
        await labels.predicted(f"bad {number}", "bad", 0.1 if number % 2 else 0.9)
        await labels.labelled(f"good {number}", came=bool(number % 2))
        await labels.labelled(f"bad {number}", came=bool(number % 2))
    found = await labels.quality(clock.now())
    assert (found["good"].auc, found["bad"].auc) == (1.0, 0.0)
    clock.advance(10)
    assert await labels.quality(clock.now()) == {}
    assert await labels.forget("good 0") == 1
    clock.advance(86_400)
    assert await labels.forget() == 7


async def test_quality_that_falls_is_told(labels: Labels, clock: ManualClock):
    """Made with an AUC of 0.95, and its scores have become noise."""
    rows = [{"x": number} for number in range(30)]
    watch = Watcher("shop", "Fraud", "v1", Reference.of(rows, quality={"auc": 0.95}), clock)
    dice = random.Random(1)
    for number in range(120):
        await labels.predicted(str(number), "v1", dice.random())
        await labels.labelled(str(number), came=number % 3 == 0)
    await labels.tell(LONG_AGO)
    assert watch.scores["auc"].told < 0.7


AGREED = {"ada", "bo"}


def _dataset(folder: Path, clock: ManualClock, bytes_max: int = 10_000_000) -> Dataset:
    return Dataset(
        folder,
        clock,
        AGREED.__contains__,
        mask=lambda text: text.replace("ada@example.com", "[email]"),
        bytes_max=bytes_max,
    )


def test_only_who_agreed_is_captured_and_nobody_by_name(tmp_path: Path, clock: ManualClock):
    """Neither the subject nor what the mask takes out stands in any file, and others cannot read it."""
    dataset = _dataset(tmp_path / "d", clock)
    assert dataset.capture("ada", "talk", "1", {"text": ["I am ada@example.com"]}, "Hello")
    assert not dataset.capture("eve", "talk", "1", "I did not agree", "Hello")
    assert not dataset.capture("", "talk", "1", "I am nobody", "Hello")
    assert not dataset.capture("bo", "talk", "1", "long" * 50_000, "Hello")
    assert (dataset.refused, dataset.dropped) == (2, 1)
    (line,) = dataset.lines("talk")
    assert line.asked == {"text": ["I am [email]"]}
    assert list(dataset.lines("other")) == []
    for path in (tmp_path / "d").iterdir():
        assert b"ada" not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0


def test_who_takes_it_back_is_forgotten(tmp_path: Path, clock: ManualClock):
    """On all days, and nobody else is. A line that a crash cut off hurts none."""
    dataset = _dataset(tmp_path, clock)
    for day in range(3):
        for subject in ("ada", "bo"):
            dataset.capture(subject, "talk", "1", f"question {day}", "answer")
        clock.advance(86_400)
    (newest,) = tmp_path.glob("2026-03-03.jsonl")
    with newest.open("ab") as file:
        file.write(b'{"at": "2026-')
    again = _dataset(tmp_path, clock)
    assert again.forget("ada") == 3
    assert len(list(again.lines())) == 3
    assert again.forget("ada") == 0
    assert all(b"[email]" not in path.read_bytes() for path in tmp_path.glob("*.new"))


def test_what_is_old_or_too_much_goes(tmp_path: Path, clock: ManualClock):
    """Days older than a month, and the oldest while all are larger than they may be."""
    dataset = _dataset(tmp_path, clock, bytes_max=2_000)
    for _ in range(40):
        dataset.capture("ada", "talk", "1", "q" * 200, "a" * 200)
        clock.advance(86_400)
    days = sorted(path.stem for path in tmp_path.glob("*.jsonl"))
    assert days[-1] == "2026-04-09"
    assert sum(path.stat().st_size for path in tmp_path.glob("*.jsonl")) < 2_700
    clock.advance(31 * 86_400)
    dataset.tidy()
    assert list(dataset.lines()) == []


def test_a_dataset_is_read_elsewhere_as_parquet(tmp_path: Path, clock: ManualClock):
    """Every line, with what was asked as JSON."""
    duckdb = pytest.importorskip("duckdb", reason="Parquet is written by DuckDB, the extra `history`")
    dataset = _dataset(tmp_path / "d", clock)
    path = tmp_path / "it's.parquet"
    with pytest.raises(CaptureError, match="SL7753"):
        dataset.to_parquet(path)
    for number in range(5):
        dataset.capture("bo", "talk", "1", {"number": number}, "yes")
    assert dataset.to_parquet(path) == 5
    with duckdb.connect() as connection:
        rows = connection.execute('SELECT asked FROM read_parquet(?) ORDER BY "at"', [str(path)]).fetchall()
    assert [msgspec.json.decode(asked)["number"] for (asked,) in rows] == [0, 1, 2, 3, 4]
