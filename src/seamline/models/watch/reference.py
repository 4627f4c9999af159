"""What a model was made with, as small as comparing needs it: bins, a sample, and how well it did.

It is JSON, kept beside the model's files, and has nobody's data but single values of single features.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Final

import msgspec

from seamline.models.watch.drift import bin_of, quantile_bins
from seamline.models.watch.errors import ReferenceUnfit

SAMPLE: Final = 512
CATEGORIES_MAX: Final = 20
VECTORS: Final = 256
_LEAST: Final = 20

Value = float | int | str | bool | None
Row = Mapping[str, Value]


class Numbers(msgspec.Struct, frozen=True, tag="numbers"):
    """A feature of numbers. The last of ``counts`` is how many had none."""

    bounds: list[float]
    counts: list[int]
    sample: list[float]
    """Sorted."""

    def count(self, values: Sequence[Value]) -> list[int]:
        counts = [0] * (len(self.bounds) + 2)
        for value in values:
            number = number_of(value)
            counts[-1 if number is None else bin_of(self.bounds, number)] += 1
        return counts


class Words(msgspec.Struct, frozen=True, tag="words"):
    """A feature of a few words. The last two of ``counts`` are of all others and of none."""

    known: list[str]
    counts: list[int]

    def count(self, values: Sequence[Value]) -> list[int]:
        places = {word: index for index, word in enumerate(self.known)}
        counts = [0] * (len(self.known) + 2)
        for value in values:
            counts[-1 if value is None else places.get(str(value), -2)] += 1
        return counts


class Vectors(msgspec.Struct, frozen=True):
    """A sample of embeddings, as base64 of 32-bit floats, one vector after another."""

    size: int
    data: str

    def array(self) -> Any:
        """A numpy array, one vector a row."""
        import numpy as np

        return np.frombuffer(base64.b64decode(self.data), "<f4").reshape(-1, self.size)


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """See :meth:`of`."""

    features: dict[str, Numbers | Words]
    quality: dict[str, float] = {}
    """What was measured when the model was made: ``auc``, ``calibration``, or scores of your own."""
    rows: int = 0
    vectors: Vectors | None = None

    @staticmethod
    def of(
        rows: Sequence[Row], *, quality: Mapping[str, float] | None = None, vectors: Any = None, seed: int = 0
    ) -> Reference:
        """Sketch what a model was made with.

        Args:
            rows: the model's inputs, and its answer under a name of its own, such as ``score``.
            quality: how well it did.
            vectors: embeddings, an array with one a row; needs numpy.
            seed: of the samples.

        Raises:
            ReferenceUnfit: there are too few rows to compare anything with.
        """
        if len(rows) < _LEAST:
            raise ReferenceUnfit(f"a reference of {len(rows)} rows", f"Give it at least {_LEAST}.")
        dice = random.Random(seed)
        names = {name: None for row in rows for name in row}
        return Reference(
            features={name: _sketch([row.get(name) for row in rows], dice) for name in names},
            quality=dict(quality or {}),
            rows=len(rows),
            vectors=_vectors(vectors, dice) if vectors is not None else None,
        )

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1)

    @staticmethod
    def load(path: Path) -> Reference:
        """Raises ReferenceUnfit."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=Reference)
        except (OSError, msgspec.DecodeError) as error:
            raise ReferenceUnfit(
                f"{path.name} is no reference: {error}", "Make it anew with `Reference.of(...).to_json()`."
            ) from None


def number_of(value: Value) -> float | None:
    """The value as a number, None where it is none or none that can be compared."""
    if value is None or isinstance(value, str):
        return None
    number = float(value)
    return number if isfinite(number) else None


def _sketch(values: Sequence[Value], dice: random.Random) -> Numbers | Words:
    if any(isinstance(value, str) for value in values):
        often: dict[str, int] = {}
        for value in values:
            if value is not None:
                often[str(value)] = often.get(str(value), 0) + 1
        words = Words(sorted(often, key=lambda word: (-often[word], word))[:CATEGORIES_MAX], [])
        return msgspec.structs.replace(words, counts=words.count(values))
    numbers = sorted(number for value in values if (number := number_of(value)) is not None)
    sample = sorted(dice.sample(numbers, SAMPLE)) if len(numbers) > SAMPLE else numbers
    sketched = Numbers(quantile_bins(numbers) if numbers else [], [], sample)
    return msgspec.structs.replace(sketched, counts=sketched.count(values))


def _vectors(vectors: Any, dice: random.Random) -> Vectors:
    import numpy as np

    array: Any = np.asarray(vectors, "<f4")
    chosen = sorted(dice.sample(range(len(array)), min(VECTORS, len(array))))
    return Vectors(int(array.shape[1]), base64.b64encode(array[chosen].tobytes()).decode())
