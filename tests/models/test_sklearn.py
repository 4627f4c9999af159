"""Estimators of scikit-learn answer as a model, and their files run nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from seamline import Contract, batched
from seamline.models.formats.errors import WeightsError
from seamline.models.runtimes.sklearn import Estimator
from seamline.models.serving.engine import Engine
from seamline.module.models import Artefacts, ModelType

REASON = "of the extra `models-sklearn`"
numpy: Any = pytest.importorskip("numpy", reason=REASON)
linear: Any = pytest.importorskip("sklearn.linear_model", reason=REASON)
skops: Any = pytest.importorskip("skops.io", reason=REASON)


class Risk(Contract):
    async def risk(self, facts: tuple[float, ...]) -> float: ...


class RiskModel:
    def load(self, artefacts: Artefacts) -> None:
        self.estimator = Estimator(artefacts.path("risk.skops"))

    @batched
    def risk(self, facts: list[tuple[float, ...]]) -> list[float]:
        return [risky for _, risky in self.estimator.probabilities(facts)]


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Any, Path]:
    """A logistic regression and its file."""
    rows = numpy.random.default_rng(1).normal(size=(200, 3))
    estimator = linear.LogisticRegression().fit(rows, rows[:, 0] + rows[:, 1] > 0)
    skops.dump(estimator, tmp_path / "risk.skops")
    return estimator, tmp_path


async def test_it_answers_as_what_was_trained(trained: tuple[Any, Path]):
    """Through a contract's model, in batches; to the last digit."""
    estimator, folder = trained

    async def make() -> object:
        return RiskModel()

    engine = Engine(ModelType(cls=RiskModel, contract=Risk, version="1"), make, artefacts=Artefacts(folder))
    await engine.start()
    row = (0.5, -0.25, 2.0)
    assert await engine.call("risk", (row,), float("inf")) == estimator.predict_proba([row])[0][1]
    loaded = Estimator(folder / "risk.skops")
    assert loaded.classes == [False, True]
    assert loaded.predict([(3, 3, 0), (-3, -3, 0)]) == [True, False]
    await engine.stop()


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path):
    """By the name of what it holds."""
    preprocessing: Any = pytest.importorskip("sklearn.preprocessing", reason=REASON)
    victim = tmp_path / "victim"
    victim.touch()
    skops.dump(preprocessing.FunctionTransformer(os.remove), tmp_path / "evil.skops")
    with pytest.raises(WeightsError, match=r"posix\.remove"):
        Estimator(tmp_path / "evil.skops")
    assert victim.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_damaged_file_is_said_to_be_one(trained: tuple[Any, Path], share: float):
    """Wherever it ends; and what is no such file at all."""
    _, folder = trained
    whole = (folder / "risk.skops").read_bytes()
    (folder / "half.skops").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match="cannot be read"):
        Estimator(folder / "half.skops")
    with pytest.raises(FileNotFoundError):
        Estimator(folder / "none.skops")
