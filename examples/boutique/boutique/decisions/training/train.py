"""Train both versions on one world, measure them on another, and write weights, reference and card.

Needs scikit-learn, which nothing else here does.
"""

# pyright: basic
# scikit-learn has no types.

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from boutique.decisions import Inputs
from boutique.decisions.scoring import NAMES, WEIGHTS, Additive, Curve, seen
from boutique.decisions.training.measure import THRESHOLD, measure, rows_of
from boutique.decisions.training.world import Labelled
from seamline.models.watch.reference import Reference

SHOPPERS = 6_000


def logistic(rows: list[tuple[Labelled, Inputs]]) -> Additive:
    table = np.array([[seen(getattr(given, name)) for name in NAMES] for _, given in rows])
    fraud = np.array([each.fraud for each, _ in rows])
    middle = table.mean(axis=0)
    model: Any = LogisticRegression(C=1.0, max_iter=2000).fit(table - middle, fraud)
    curves = {
        name: Curve(slope=round(float(slope), 5), middle=round(float(at), 5))
        for name, slope, at in zip(NAMES, model.coef_[0], middle, strict=True)
    }
    return Additive(version="logistic-1", bias=round(float(model.intercept_[0]), 5), curves=curves)


def stumps(rows: list[tuple[Labelled, Inputs]]) -> Additive:
    table = np.array([[getattr(given, name) for name in NAMES] for _, given in rows])
    fraud = np.array([each.fraud for each, _ in rows])
    model: Any = GradientBoostingClassifier(
        max_depth=1, n_estimators=150, learning_rate=0.2, min_samples_leaf=40, random_state=0
    )
    model.fit(table, fraud)
    jumps: dict[str, dict[float, float]] = {name: {} for name in NAMES}
    bias = float(np.log(fraud.mean() / (1 - fraud.mean())))
    for (tree,) in model.estimators_:
        nodes = tree.tree_
        if nodes.feature[0] < 0:
            continue
        name = list(NAMES)[nodes.feature[0]]
        bound = float(nodes.threshold[0])
        below, above = (
            0.2 * float(nodes.value[child][0][0]) for child in (nodes.children_left[0], nodes.children_right[0])
        )
        bias += below
        jumps[name][bound] = jumps[name].get(bound, 0.0) + above - below
    curves: dict[str, Curve] = {}
    for name, found in jumps.items():
        bounds = sorted(found)
        steps = [0.0]
        for bound in bounds:
            steps.append(round(steps[-1] + found[bound], 5))
        middle = float(np.mean([Curve(bounds=bounds, steps=steps).at(getattr(given, name)) for _, given in rows]))
        bias += middle
        # A step begins at its bound; trees go left at it.
        curves[name] = Curve(
            bounds=[float(np.nextafter(bound, np.inf)) for bound in bounds], steps=[round(s - middle, 5) for s in steps]
        )
    return Additive(version="stumps-1", bias=round(bias, 5), curves=curves)


def main(folder: Path = WEIGHTS) -> None:
    train, test = rows_of(1, SHOPPERS), rows_of(2, SHOPPERS)
    share = sum(each.fraud for each, _ in test) / len(test)
    lines = [
        "# The fraud models",
        "",
        "Trained on a month of synthetic shoppers (`training/world.py`, seed 1) and measured on another (seed 2).",
        f"{len(train):,} orders to train, {len(test):,} to measure, {share:.1%} fraud.",
        "They know nothing of real shoppers: they show how decisions are made, explained and replayed.",
        "",
        f"| version | AUC | calibration error | precision at {THRESHOLD} | recall at {THRESHOLD} |",
        "|---|---|---|---|---|",
    ]
    for model in (logistic(train), stumps(train)):
        found = measure(model, test)
        assert found.auc is not None
        lines.append(
            f"| {model.version} | {found.auc:.3f} | {found.calibration:.3f} | {found.precision:.2f} "
            f"| {found.recall:.2f} |"
        )
        told = [{**dataclasses.asdict(given), "probability": model.score(given).probability} for _, given in train]
        reference = Reference.of(told, quality={"auc": round(found.auc, 4)})
        (folder / f"{model.version}.json").write_bytes(_pretty(model))
        (folder / f"reference.{model.version}.json").write_bytes(msgspec.json.encode(reference) + b"\n")
    (folder / "CARD.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))  # noqa: T201  # a script


def _pretty(model: Additive) -> bytes:
    return msgspec.json.format(msgspec.json.encode(model), indent=1) + b"\n"


if __name__ == "__main__":
    main()
