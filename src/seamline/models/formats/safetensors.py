"""Reading safetensors: a JSON header that says where each tensor lies, then the tensors, mapped and not copied.

The format is that of the library safetensors. As its reference reader does, this one refuses a header of
more than 100 MB, tensors that overlap, a byte that belongs to none, and a size that is not that of the shape; so a file
has one meaning, and nothing can be hidden in it.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeGuard, cast

from seamline.models.extras import required
from seamline.models.formats.errors import WeightsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEADER_BYTES_MAX: Final = 100_000_000
_RANK_MAX: Final = 32
_BYTES: Final = {
    "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
_NUMPY: Final = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "I16": "<i2", "U16": "<u2", "F16": "<f2", "BF16": "<u2", "I32": "<i4",
    "U32": "<u4", "F32": "<f4", "I64": "<i8", "U64": "<u8", "F64": "<f8",
}  # fmt: skip


class Tensor:
    """Where a tensor lies."""

    __slots__ = ("begin", "dtype", "end", "shape")

    def __init__(self, dtype: str, shape: tuple[int, ...], begin: int, end: int) -> None:
        self.dtype = dtype
        self.shape = shape
        self.begin = begin
        """Offset in the file, in bytes."""
        self.end = end


class Safetensors(Mapping[str, "NDArray[Any]"]):
    """The tensors of a file by name. Made by :func:`open_safetensors`.

    A tensor is a read-only view of the file, which stays mapped while there is one. BF16, which NumPy lacks, is
    widened to float32 each time that it is asked for.
    """

    def __init__(
        self, path: Path, mapped: mmap.mmap, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
    ) -> None:
        self.path = path
        self.tensors = MappingProxyType(dict(tensors))
        """What the header says, without reading anything."""
        self.metadata = MappingProxyType(dict(metadata))
        self._mapped = mapped

    def __getitem__(self, key: str) -> NDArray[Any]:
        numpy: Any = required("numpy")
        tensor = self.tensors[key]
        count = prod(tensor.shape)
        if not count:  # NumPy refuses to look at no bytes
            return numpy.zeros(tensor.shape, _NUMPY[tensor.dtype])
        flat = numpy.frombuffer(self._mapped, _NUMPY[tensor.dtype], count, tensor.begin)
        if tensor.dtype == "BF16":
            flat = (flat.astype("<u4") << 16).view("<f4")
        return cast("NDArray[np.generic]", flat.reshape(tensor.shape))

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def forget(self) -> None:
        """Give back the memory of pages that were read; they are read again where somebody needs them."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)


def open_safetensors(path: Path | str) -> Safetensors:
    """The tensors in a file, none of them read yet. Its header is checked as a whole.

    The file must not be cut short while it is mapped: whoever reads beyond its end is killed by the system.

    Raises:
        WeightsError: it is not a safetensors file, or not a sound one.
        OSError: it cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 10:
            _refuse(path, f"has {size} bytes")
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER_BYTES_MAX or length > size - 8:
            _refuse(path, f"has a header of {length} bytes, they say")
        tensors, metadata = _header(path, file.read(length), size - 8 - length)
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return Safetensors(path, mapped, tensors, metadata)


def _header(path: Path, text: bytes, data_bytes: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not text.startswith(b"{"):
        _refuse(path, "has a header that does not begin with a brace")
    try:
        header = json.loads(text.decode(), object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"has a header that is not JSON: {error}")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(
        isinstance(value, str) for value in cast("dict[str, object]", metadata).values()
    ):
        _refuse(path, "has metadata that are not texts")
    start = 8 + len(text)
    tensors = {name: _tensor(path, name, said, start) for name, said in header.items()}
    _check_layout(path, tensors, start, start + data_bytes)
    return tensors, cast("dict[str, str]", metadata)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _tensor(path: Path, name: str, said: object, start: int) -> Tensor:
    fields = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
    dtype, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if len(fields) != 3 or not isinstance(dtype, str) or not _is_list(shape) or not _is_list(offsets, 2):
        _refuse(path, f"says of tensor {name!r} not just dtype, shape and data_offsets")
    if dtype not in _BYTES:
        _refuse(path, f"has tensor {name!r} of dtype {dtype!r}, which is not known here")
    sizes = [*shape, *offsets]
    if len(sizes) > _RANK_MAX + 2 or not all(type(each) is int and 0 <= each < 1 << 63 for each in sizes):
        _refuse(path, f"has tensor {name!r} of a shape or at a place that cannot be")
    *lengths, first, last = cast("list[int]", sizes)
    if prod(max(each, 1) for each in lengths) >= 1 << 60:  # also if one of them is zero
        _refuse(path, f"has tensor {name!r} of a shape that cannot be: {lengths}")
    if last - first != prod(lengths) * _BYTES[dtype]:
        _refuse(path, f"has tensor {name!r} of shape {lengths} and {dtype} in {last - first} bytes")
    return Tensor(dtype, tuple(lengths), start + first, start + last)


def _is_list(value: object, length: int | None = None) -> TypeGuard[list[object]]:
    return isinstance(value, list) and (length is None or len(cast("list[object]", value)) == length)


def _check_layout(path: Path, tensors: Mapping[str, Tensor], start: int, end: int) -> None:
    """One after the other, from the first byte to the last."""
    at = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != at:
            _refuse(path, f"has tensor {name!r} at byte {tensor.begin}, where {at} is due")
        at = tensor.end
    if at != end:
        _refuse(path, f"should end at byte {at} and ends at {end}")


def _refuse(path: Path, said: str) -> NoReturn:
    raise WeightsError(f"{path.name} {said}", "Get the file anew, and check its digest.", place=str(path))
