"""Nearest neighbours: which of many vectors are most like one.

A few thousand vectors are looked at one by one: that takes a fraction of a millisecond, and finds always the nearest.
More of them stand in an index of hierarchical navigable small worlds (Y. Malkov and D. Yashunin, 2016) by voyager,
which looks at some hundreds of them and finds nearly always the nearest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from seamline.models.extras import required

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

EXACT_MAX: Final = 2_000
"""So many vectors are compared one by one."""


class Near(NamedTuple):
    name: str
    similarity: float
    """The cosine: 1 is the same direction, 0 has nothing to do with it."""


class VectorIndex:
    """Vectors by name. Threads may use it at the same time.

    Args:
        dimensions: of each vector.
        effort: candidates that a search in an index keeps; the more, the surer it finds the nearest, and the longer it
            takes.

    Raises:
        ExtraMissingError: the extra ``models`` is not installed, or of many vectors ``models-index``.
    """

    def __init__(self, dimensions: int, *, effort: int = 128) -> None:
        self._numpy = required("numpy")
        self._dimensions, self._effort = dimensions, effort
        self._vectors: dict[str, NDArray[Any]] = {}
        """Of length 1, or 0."""
        self._rows: tuple[list[str], NDArray[Any]] | None = None
        """All of them, for searching one by one; made when they are needed."""
        self._index: Any = None
        """Made when there are many; then these say what stands in it under which number."""
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    def __contains__(self, name: str) -> bool:
        return name in self._vectors

    def put(self, vectors: Mapping[str, ArrayLike]) -> None:
        """Add vectors, or replace those of the same names."""
        numpy = self._numpy
        if not vectors:
            return
        rows = numpy.array([*vectors.values()], "float32").reshape(len(vectors), self._dimensions)
        rows /= numpy.maximum(numpy.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        with self._lock:
            self._forget(vectors)
            self._vectors.update(zip(vectors, rows, strict=True))
            if self._index is not None:
                self._add([*vectors], rows)

    def remove(self, names: Sequence[str]) -> None:
        """Those that are there."""
        with self._lock:
            self._forget(names)

    def nearest(self, vector: ArrayLike, count: int) -> list[Near]:
        """The ``count`` most similar, or as many as there are, the most similar first."""
        numpy = self._numpy
        row = numpy.asarray(vector, "float32").reshape(self._dimensions)
        with self._lock:
            count = min(count, len(self._vectors))
            if count < 1:
                return []
            if len(self._vectors) <= EXACT_MAX:
                return self._one_by_one(row, count)
            index = self._begin() if self._index is None else self._index
            numbers, distances = index.query(row, count, query_ef=max(self._effort, 2 * count))
            pairs = zip(numbers.tolist(), distances.tolist(), strict=True)
            return [Near(self._names[number], 1.0 - distance) for number, distance in pairs]

    def _one_by_one(self, row: NDArray[Any], count: int) -> list[Near]:
        if self._rows is None:
            self._rows = [*self._vectors], self._numpy.stack([*self._vectors.values()])
        names, rows = self._rows
        cosines = rows @ (row / max(float(self._numpy.linalg.norm(row)), 1e-12))
        best = self._numpy.argsort(-cosines, kind="stable")[:count]
        return [Near(names[place], float(cosines[place])) for place in best]

    def _begin(self) -> Any:
        voyager = required("voyager", "models-index")
        self._index = voyager.Index(voyager.Space.Cosine, num_dimensions=self._dimensions, random_seed=1)
        self._numbers, self._names = {}, []
        self._add([*self._vectors], self._numpy.stack([*self._vectors.values()]))
        return self._index

    def _add(self, names: Sequence[str], rows: NDArray[Any]) -> None:
        numbers = range(len(self._names), len(self._names) + len(names))
        self._numbers.update(zip(names, numbers, strict=True))
        self._names += names
        self._index.add_items(rows, [*numbers], num_threads=1)

    def _forget(self, names: Iterable[str]) -> None:
        self._rows = None
        for name in names:
            self._vectors.pop(name, None)
            number = self._numbers.pop(name, None)
            if number is not None and self._index is not None:
                self._index.mark_deleted(number)
        if len(self._names) > 2 * len(self._vectors):  # most of what stands there is no more
            self._index, self._numbers, self._names = None, {}, []
