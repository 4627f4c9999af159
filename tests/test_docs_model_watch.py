"""The page on watching models says what the code does: its limits, scores, codes and examples."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from tests.pages import read_page

from seamline import Artefacts, Capture, Watch
from seamline.kernel.clock import ManualClock
from seamline.kernel.store import Database, sqlite_url
from seamline.models.watch import answers, datasets, errors, replay, watcher
from seamline.models.watch.answers import Answers
from seamline.models.watch.datasets import Datasets
from seamline.models.watch.declared import watched
from seamline.models.watch.evaluators import Fits, Length, Refusal, Toxicity
from seamline.models.watch.judges import Judge
from seamline.models.watch.labels import Labels
from seamline.models.watch.reference import CATEGORIES_MAX, Reference
from seamline.models.watch.watcher import Watcher
from seamline.module.wiring import check_model

PAGE = read_page("model-watch.md")


def default(function: object, name: str) -> object:
    return inspect.signature(function).parameters[name].default  # type: ignore[arg-type]


def test_limits_are_those_of_the_code():
    """Windows, samples, shares, days and megabytes."""
    for name, shown in (("window_s", "300 s"), ("rows_min", "200"), ("rows_max", "2,000")):
        assert f"`{name}` ({shown})" in PAGE
        assert float(str(default(Watcher, name))) == float(shown.rstrip(" s").replace(",", ""))
    assert default(Answers, "answers_min") == 50
    assert default(Judge, "share") == 0.01
    assert default(Judge, "per_hour_max") == 60
    assert default(Labels, "keep_s") == 90 * 86_400
    assert (datasets.KEEP_S, datasets.BYTES_MAX) == (30 * 86_400, 64 * 1024 * 1024)
    assert (watcher.CHANCE, CATEGORIES_MAX) == (1e-6, 20)
    *steps, last = (f"{each:g}" for each in watcher.LEVELS)
    assert f"steps of {', '.join(steps)} and {last}" in PAGE


def test_every_score_and_code_is_on_the_page():
    """The scores of answers with what matters of each, and what can be wrong."""
    shown = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+ ?%?) \|$", PAGE, re.MULTILINE))
    shares: dict[str, float] = answers._LEAST_SHARES  # pyright: ignore[reportPrivateUsage]
    assert {name: float(amount.rstrip(" %")) / 100 for name, amount in shown.items() if "%" in amount} == shares
    assert {each.name for each in (Length(), Refusal(), Toxicity(), Fits(int))} <= shown.keys()
    assert {"grade", "cost"} <= shown.keys()
    assert default(Watcher.measured, "least") == 0.03
    codes = {each.code for each in vars(errors).values() if getattr(each, "code", "").startswith("SL775")}
    assert set(re.findall(r"^\| (SL77\d{2}) ", PAGE, re.MULTILINE)) == codes - {"SL7750"}
    assert f"`{watcher.TOLD}<model>.<version>.drift.{watcher.VECTORS_NAME}`" in PAGE


@pytest.mark.parametrize("declared", [Watch, Capture])
def test_what_can_be_said_of_a_watch_is_on_the_page(declared: type[Any]):
    """Each field with its default; what has none, or nothing, shows nothing."""
    table = PAGE.split(f"| of `{declared.__name__}` |")[1].split("\n\n")[0]
    shown = dict(re.findall(r"^\| `(\w+)` \| (.*?)\|", table, re.MULTILINE))
    fields = {each.name: each.default for each in dataclasses.fields(declared)}
    empty = (None, "", (), dataclasses.MISSING)
    assert {name: text.strip() for name, text in shown.items()} == {
        name: "" if value in empty else f"`{value}`" for name, value in fields.items()
    }


def test_limits_of_replays_are_those_of_the_code():
    """Decisions that are looked at, and changes that are told."""
    assert f"newest {replay.MOST:,} decisions are looked at and {replay.SHOWN} changes told" in PAGE


async def test_its_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The model can be watched, the watcher is made of a reference, the label finds its score, and what was decided is
    decided again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    reference = Reference.of([{"amount": float(number)} for number in range(30)])
    (tmp_path / "weights" / "reference.json").write_bytes(reference.to_json())
    line, by_hand, labels, again = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    exec(line, names)  # the page's own code
    exec(by_hand, names)  # the page's own code
    exec(again, names)  # the page's own code
    module, clock = names["module"], ManualClock()
    check_model(module.models[0])
    found = watched(module.models[0], module, Artefacts(tmp_path), clock, Datasets(tmp_path / "data", clock))
    assert found is not None
    found.answered("score", (12.5, "BE"), 0.5)
    assert found.watcher.stats()["drift"].keys() == {"amount"}
    names["watcher"](clock).saw({"amount": 12.5})
    exec(labels, names)  # the page's own code
    async with Database(sqlite_url(tmp_path, "shop"), "shop") as database:
        await names["learn"](database, clock)
        qualities = await Labels(database, "Fraud", clock).quality(clock.now())
    assert (qualities["logistic-1"].cases, qualities["logistic-1"].positives) == (1, 1)
    past = [replay.Past(id="1", at=clock.now(), verdict="accept", basis=(700.0, "BE"))]
    today = replay.Today(model=_Model(), version="logistic-1")
    (cls,) = module.replayers.values()
    told = await replay.replay(cls(names["Book"](past)), today, clock.now(), _nothing)
    assert told["changes"] == {"accept": {"refuse": 1}}


class _Model:
    async def score(self, amount: float, country: str) -> float:
        return amount / 1000


async def _nothing(_: str) -> None:
    """Of progress."""
