"""The nearest vectors are found, also while they change."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seamline.models.errors import ExtraMissingError
from seamline.models.index import EXACT_MAX, VectorIndex

np: Any = pytest.importorskip("numpy", reason="the extra models-index is not installed")
pytest.importorskip("voyager", reason="the extra models-index is not installed")


def unit(rows: int, columns: int, seed: int = 1) -> Any:
    found = np.random.default_rng(seed).standard_normal((rows, columns)).astype("float32")
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_few_vectors_are_searched_exactly():
    """The order is that of NumPy's cosines, and so are the similarities."""
    rows = unit(500, 16)
    index = VectorIndex(16)
    index.put({f"v{number}": 3 * row for number, row in enumerate(rows)})
    for query in unit(20, 16, seed=2):
        cosines = rows @ query
        best = np.argsort(-cosines)[:10]
        found = index.nearest(query, 10)
        assert [each.name for each in found] == [f"v{number}" for number in best]
        assert np.abs(np.array([each.similarity for each in found]) - cosines[best]).max() < 1e-5


def test_of_many_vectors_nearly_all_the_nearest_are_found():
    """At least 95 of 100, where chance would find one."""
    rows = unit(3 * EXACT_MAX, 32)
    index = VectorIndex(32)
    index.put({str(number): row for number, row in enumerate(rows)})
    queries = unit(50, 32, seed=2)
    hits = sum(
        len({each.name for each in index.nearest(query, 10)} & {str(n) for n in np.argsort(-(rows @ query))[:10]})
        for query in queries
    )
    assert hits >= 0.95 * 10 * len(queries)


NAMES = st.sampled_from("abcdefgh")


@settings(max_examples=60, deadline=None)
@given(changes=st.lists(st.tuples(st.booleans(), NAMES, st.integers(0, 99)), max_size=30))
def test_what_was_replaced_or_removed_is_not_found(changes: list[tuple[bool, str, int]]):
    """Whatever the changes, what is found is what a dictionary holds."""
    rows, model = unit(100, 8), dict[str, Any]()
    index = VectorIndex(8)
    for put, name, number in changes:
        if put:
            index.put({name: rows[number]})
            model[name] = rows[number]
        else:
            index.remove([name])
            model.pop(name, None)
    found = index.nearest(rows[0], 100)
    assert {each.name for each in found} == set(model)
    assert len(index) == len(model)
    for each in found:
        assert each.name in index
        assert abs(each.similarity - float(model[each.name] @ rows[0])) < 1e-5


def test_many_vectors_that_change_are_found_as_they_are():
    """Replaced, removed until few are left, and added again."""
    rows = unit(EXACT_MAX + 500, 8)
    index = VectorIndex(8)
    index.put({str(number): row for number, row in enumerate(rows)})
    assert index.nearest(rows[7], 1)[0].name == "7"
    index.put({"7": -rows[7], "new": rows[7]})
    assert index.nearest(rows[7], 1)[0].name == "new"
    assert index.nearest(-rows[7], 1)[0].name == "7"
    index.remove([str(number) for number in range(100, EXACT_MAX + 500)])
    assert len(index) == 101
    assert {each.name for each in index.nearest(rows[3], 101)} == {"new", *map(str, range(100))}
    index.put({str(number): rows[number] for number in range(100, EXACT_MAX + 500)})
    assert [each.name for each in index.nearest(rows[1234], 1)] == ["1234"]


def test_without_its_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """The extra, by name; of few vectors it needs but NumPy."""
    monkeypatch.setitem(sys.modules, "voyager", None)
    index = VectorIndex(8)
    rows = unit(EXACT_MAX + 1, 8)
    index.put({str(number): row for number, row in enumerate(rows[1:])})
    assert index.nearest(rows[1], 1)[0].name == "0"
    index.put({"one more": rows[0]})
    with pytest.raises(ExtraMissingError, match=r"pip install 'seamline\[models-index\]'"):
        index.nearest(rows[0], 1)
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ExtraMissingError, match=r"pip install 'seamline\[models\]'"):
        VectorIndex(8)


def test_an_index_and_an_encoder_live_in_one_process():
    """Whichever is imported first: libraries that bring their own C++ have been seen to break each other."""
    pytest.importorskip("onnxruntime", reason="the extra models is not installed")
    for first, second in (("voyager", "onnxruntime"), ("onnxruntime", "voyager")):
        subprocess.run([sys.executable, "-c", f"import {first}, {second}"], check=True, timeout=60)
