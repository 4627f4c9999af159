"""Reading GGUF: what llama.cpp keeps models in. Metadata, then tensors, mapped and not copied, often of 4 to 8 bits.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian. Every length is
checked against the bytes that are there before anything of that length is made.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from seamline.models.formats.errors import WeightsError
from seamline.models.formats.ggml import FORMS, Form

_SCALARS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_DIMENSIONS_MAX: Final = 4
_NAME_BYTES_MAX: Final = 65_535


class GgufTensor:
    """Where a tensor lies, and in what form."""

    __slots__ = ("begin", "end", "form", "shape")

    def __init__(self, form: Form, shape: tuple[int, ...], begin: int) -> None:
        self.form = form
        self.shape = shape
        """As NumPy has it: the last dimension is the one whose elements are neighbours."""
        self.begin = begin
        self.end = begin + prod(shape) // form.block * form.block_bytes


class Gguf(Mapping[str, npt.NDArray[np.float32]]):
    """The tensors of a file by name, as float32; made by :func:`open_gguf`. A tensor is widened each time it is asked
    for; :meth:`raw` gives its bytes."""

    def __init__(
        self, name: str, mapped: mmap.mmap, metadata: Mapping[str, Any], tensors: Mapping[str, GgufTensor]
    ) -> None:
        self.name = name
        self.metadata = MappingProxyType(dict(metadata))
        self.tensors = MappingProxyType(dict(tensors))
        self._mapped = mapped

    def __getitem__(self, key: str) -> npt.NDArray[np.float32]:
        tensor = self.tensors[key]
        return tensor.form.floats(self.raw(key)).reshape(tensor.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def raw(self, key: str) -> npt.NDArray[np.uint8]:
        """The bytes, ``[blocks, bytes of a block]``."""
        tensor = self.tensors[key]
        return np.frombuffer(self._mapped, np.uint8, tensor.end - tensor.begin, tensor.begin).reshape(
            -1, tensor.form.block_bytes
        )


def open_gguf(path: Path | str) -> Gguf:
    """What is in a file, none of its tensors read yet.

    Raises:
        WeightsError: it is not a GGUF file, not a sound one, or has tensors of a form that is not known here.
        OSError: it cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            _refuse(path, "is empty")
    return _Reader(path, mapped).read()


class _Reader:
    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        self._path = path
        self._mapped = mapped
        self._at = 0

    def read(self) -> Gguf:
        if self._bytes(4) != b"GGUF":
            _refuse(self._path, "does not begin with GGUF")
        version = self._scalar(4)
        if version not in {2, 3}:
            _refuse(self._path, f"is of version {version}, or of the other byte order; 2 and 3 are known")
        tensors, pairs = self._count(24), self._count(13)
        metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._string(_NAME_BYTES_MAX)
            if key in metadata:
                _refuse(self._path, f"says {key!r} twice")
            metadata[key] = self._value(self._scalar(4))
        return Gguf(self._path.name, self._mapped, metadata, self._tensors(tensors, metadata))

    def _tensors(self, count: int, metadata: dict[str, Any]) -> dict[str, GgufTensor]:
        said: dict[str, tuple[Form, tuple[int, ...], int]] = {}
        for _ in range(count):
            name = self._string(_NAME_BYTES_MAX)
            dimensions = self._scalar(4)
            if name in said or not 0 < dimensions <= _DIMENSIONS_MAX:
                _refuse(self._path, f"has tensor {name!r} twice, or of {dimensions} dimensions")
            shape = tuple(reversed([self._scalar(10) for _ in range(dimensions)]))
            form = FORMS.get(number := self._scalar(4))
            if form is None:
                _refuse(self._path, f"has tensor {name!r} of form {number}, which is not known here")
            said[name] = form, shape, self._scalar(10)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            _refuse(self._path, f"has an alignment of {alignment!r}")
        start = -(-self._at // alignment) * alignment
        return {name: self._tensor(name, start, alignment, *tensor) for name, tensor in said.items()}

    def _tensor(
        self, name: str, start: int, alignment: int, form: Form, shape: tuple[int, ...], offset: int
    ) -> GgufTensor:
        # Products of numbers of 64 bits are no trouble for Python; the bound is the file.
        if prod(shape) == 0 or shape[-1] % form.block or offset % alignment:
            _refuse(self._path, f"has tensor {name!r} of a shape or at a place that cannot be: {shape}, {offset}")
        tensor = GgufTensor(form, shape, start + offset)
        if tensor.end > len(self._mapped):
            _refuse(self._path, f"ends before its tensor {name!r} does")
        return tensor

    # Pieces, each checked against what is left of the file.

    def _bytes(self, count: int) -> bytes:
        piece = self._mapped[self._at : self._at + count]
        if len(piece) != count:
            _refuse(self._path, f"ends at byte {len(self._mapped)}, in the middle of something")
        self._at += count
        return piece

    def _scalar(self, kind: int) -> Any:
        form = _SCALARS[kind]
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _count(self, each_bytes: int) -> int:
        """How many things follow, which take at least so many bytes each."""
        count: int = self._scalar(10)
        if count > (len(self._mapped) - self._at) // each_bytes:
            _refuse(self._path, f"has not the {count} things that it says it has")
        return count

    def _string(self, bytes_max: int) -> str:
        length = self._count(1)
        if length > bytes_max:
            _refuse(self._path, f"has a name of {length} bytes")
        return self._bytes(length).decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string(len(self._mapped))
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            _refuse(self._path, f"has a value of type {kind}, which is not known")
        return self._scalar(kind)

    def _array(self) -> list[Any]:
        kind = self._scalar(4)
        if kind == _STRING:
            return [self._string(len(self._mapped)) for _ in range(self._count(8))]
        form = _SCALARS.get(kind)
        if form is None:  # arrays of arrays are allowed by the format, and used by nobody
            _refuse(self._path, f"has an array of type {kind}, which is not known")
        size = struct.calcsize(form)
        count = self._count(size)
        return [value for (value,) in struct.iter_unpack(form, self._bytes(count * size))]


def _refuse(path: Path, said: str) -> NoReturn:
    raise WeightsError(f"{path.name} {said}", "Get the file anew, and check its digest.", place=str(path))
