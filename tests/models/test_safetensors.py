"""Weights are read as the format's own reader reads them, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seamline.models.formats.errors import WeightsError
from seamline.models.formats.safetensors import open_safetensors

np: Any = pytest.importorskip("numpy", reason="the extra models is not installed")
reference: Any = pytest.importorskip("safetensors.numpy", reason="the extra models is not installed")


def sample() -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {
        "a.weight": random.standard_normal((3, 5)).astype("f4"),
        "b": random.standard_normal((2, 2, 2)).astype("f2"),
        "counts": np.arange(7, dtype="i8"),
        "scalar": np.array(3.5),
        "nothing": np.zeros((0, 4), "f4"),
        "flags": np.array([True, False]),
    }


def written(folder: Path, header: dict[str, Any] | bytes, data: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "w.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_tensors_are_those_that_were_saved(tmp_path: Path):
    """By name, of their shape and type, not copied, and not to be changed."""
    path = tmp_path / "w.safetensors"
    reference.save_file(sample(), path, metadata={"format": "np"})
    found = open_safetensors(path)
    assert set(found) == set(sample())
    assert dict(found.metadata) == {"format": "np"}
    for name, tensor in sample().items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert np.array_equal(found[name], tensor)
    assert not found["a.weight"].flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        found["a.weight"][0, 0] = 1.0
    found.forget()
    assert np.array_equal(found["a.weight"], sample()["a.weight"])


def test_bfloat16_is_widened_without_loss(tmp_path: Path):
    """Every one of the 65,536 values, with infinities and numbers that are none."""
    bits = np.arange(1 << 16, dtype="<u2")
    header = {"x": {"dtype": "BF16", "shape": [1 << 16], "data_offsets": [0, 2 << 16]}}
    values = open_safetensors(written(tmp_path, header, bits.tobytes()))["x"]
    assert values.dtype == np.float32
    assert np.array_equal(values.view("<u4"), bits.astype("<u4") << 16)


def entry(begin: int, end: int, *shape: int, dtype: str = "F32", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end], **more}


WRONG: dict[str, tuple[dict[str, Any] | bytes, bytes, str]] = {
    "overlap": ({"a": entry(0, 8, 2), "b": entry(4, 12, 2)}, bytes(12), "at byte"),
    "gap": ({"a": entry(0, 4, 1), "b": entry(8, 12, 1)}, bytes(12), "at byte"),
    "more data": ({"a": entry(0, 4, 1)}, bytes(8), "ends at"),
    "less data": ({"a": entry(0, 8, 2)}, bytes(4), "ends at"),
    "wrong size": ({"a": entry(0, 8, 3)}, bytes(8), r"of shape \[3\] and F32 in 8 bytes"),
    "backwards": ({"a": entry(8, 0, 2)}, bytes(8), "in -8 bytes"),
    "negative": ({"a": entry(-4, 0, 1)}, b"", "cannot be"),
    "negative shape": ({"a": entry(0, 4, -1, -1)}, bytes(4), "cannot be"),
    "huge shape": ({"a": entry(0, 0, 1 << 40, 1 << 40, 0)}, b"", "cannot be"),
    "too many dimensions": ({"a": entry(0, 4, *([1] * 40))}, bytes(4), "cannot be"),
    "a shape that is no number": ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, bytes(4), "cannot"),
    "an unknown dtype": ({"a": entry(0, 4, 1, dtype="X32")}, bytes(4), "'X32'"),
    "something more": ({"a": entry(0, 4, 1, code="x")}, bytes(4), "not just"),
    "not an object": ({"a": [1]}, b"", "not just"),
    "twice": (b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{}}', b"", "twice"),
    "metadata": ({"__metadata__": {"x": 1}}, b"", "texts"),
    "no object": (b"[]        ", b"", "brace"),
    "no JSON": (b'{"a": ', b"", "not JSON"),
    "deep": (b'{"a":' + b"[" * 100_000, b"", "not JSON"),
    "no text": (b'{"\xff":1}', b"", "not JSON"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_not_sound_is_refused(case: str, tmp_path: Path):
    """With its name, and what is wrong; before anything of it is read."""
    header, data, said = WRONG[case]
    with pytest.raises(WeightsError, match=said) as caught:
        open_safetensors(written(tmp_path, header, data))
    assert "w.safetensors" in str(caught.value)


@pytest.mark.parametrize("length", [0, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_a_header_that_is_longer_than_its_file_is_refused(length: int, tmp_path: Path):
    """Nothing of that size is asked of memory."""
    path = tmp_path / "w.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}  ")
    with pytest.raises(WeightsError):
        open_safetensors(path)
    path.write_bytes(b"{}")
    with pytest.raises(WeightsError, match="2 bytes"):
        open_safetensors(path)


def _flip(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


def _cut(data: bytes, at: int, value: int) -> bytes:
    _ = value
    return data[:at]


def _insert(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at:]


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.sampled_from([_flip, _flip, _cut, _insert]), st.integers(0, 400), st.integers(0, 255)),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_is_read_the_formats_own_reader_reads_too(
    changes: list[tuple[Callable[[bytes, int, int], bytes], int, int]], tmp_path: Path
):
    """A damaged file is refused, or has the same tensors for both; ours raises one error and no other."""
    data = reference.save(sample())
    for change, at, value in changes:
        data = change(data, min(at, len(data) - 1), value)
        if not data:
            return
    path = tmp_path / "w.safetensors"
    path.write_bytes(data)
    try:
        ours = open_safetensors(path)
    except WeightsError:
        return
    theirs = reference.load(data)
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert ours[name].shape == tensor.shape
        assert ours[name].tobytes() == tensor.tobytes()
