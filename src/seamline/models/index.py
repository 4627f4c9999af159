"""Nearest neighbours: which of many vectors are most like one.

Stands on usearch, an index by hierarchical navigable small worlds (Y. Malkov and D. Yashunin, 2016): it looks at a few
hundred of a million vectors, and finds nearly always the nearest ones. A few thousand vectors are looked at one by one,
which is as fast then and finds always the nearest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from seamline.models.runtimes.extras import required

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

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
        effort: candidates that a search keeps; the more, the surer it finds the nearest, and the longer it takes.

    Raises:
        ExtraMissingError: the extra ``models-index`` is not installed.
    """

    def __init__(self, dimensions: int, *, effort: int = 128) -> None:
        self._numpy = required("numpy", "models-index")
        usearch = required("usearch.index", "models-index")
        self._index: Any = usearch.Index(ndim=dimensions, metric="cos", dtype="f32", expansion_search=effort)
        self._keys: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._next = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, name: str) -> bool:
        return name in self._keys

    def put(self, vectors: Mapping[str, ArrayLike]) -> None:
        """Add vectors, or replace those of the same names."""
        if not vectors:
            return
        rows = self._numpy.array([*vectors.values()], "float32")
        with self._lock:
            self._forget(name for name in vectors if name in self._keys)
            keys = range(self._next, self._next + len(rows))
            self._index.add(self._numpy.array(keys, "uint64"), rows, threads=1)
            self._next += len(rows)
            self._keys.update(zip(vectors, keys, strict=True))
            self._names.update(zip(keys, vectors, strict=True))

    def remove(self, names: Sequence[str]) -> None:
        """Those that are there."""
        with self._lock:
            self._forget(name for name in names if name in self._keys)

    def nearest(self, vector: ArrayLike, count: int) -> list[Near]:
        """The ``count`` most similar, or as many as there are, the most similar first."""
        row = self._numpy.asarray(vector, "float32")
        with self._lock:
            count = min(count, len(self._keys))
            if count < 1:
                return []
            found = self._index.search(row, count, threads=1, exact=len(self._keys) <= EXACT_MAX)
            pairs = zip(found.keys.tolist(), found.distances.tolist(), strict=True)
            return [Near(self._names[key], 1.0 - distance) for key, distance in pairs]

    def _forget(self, names: Any) -> None:
        for name in list(names):
            key = self._keys.pop(name)
            del self._names[key]
            self._index.remove(key)
