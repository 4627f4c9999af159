"""The Open Inference Protocol, version 2: tensors as JSON, or as bytes behind it where a server can.

https://github.com/kserve/open-inference-protocol and Triton's extension for binary tensor data.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from seamline.models.errors import EngineMalformed
from seamline.models.wire.reading import decoded

if TYPE_CHECKING:
    import numpy as np

_FORMATS: Final[Mapping[str, str]] = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i",
    "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_NUMPY: Final[Mapping[str, str]] = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_SIZE: Final = struct.Struct("<I")
_encode = msgspec.json.Encoder().encode


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """Numbers, row by row, little-endian; of ``BYTES`` each element with its length before it."""

    datatype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> Tensor:
        encoded = [text.encode() for text in texts]
        return cls("BYTES", (len(encoded),), b"".join(_SIZE.pack(len(each)) + each for each in encoded))

    @classmethod
    def of(cls, datatype: str, shape: Sequence[int], values: Sequence[Any]) -> Tensor:
        """Of values in a row."""
        return cls(datatype, tuple(shape), _packed(datatype, values))

    @classmethod
    def of_array(cls, array: np.ndarray) -> Tensor:
        """Of a NumPy array of numbers."""
        code = array.dtype.newbyteorder("<").str.replace("|", "").replace("b1", "?")
        names = {code: name for name, code in _NUMPY.items()}
        if code not in names:
            raise ValueError(f"{array.dtype} has no name in the Open Inference Protocol")
        return cls(names[code], array.shape, array.astype(code).tobytes())

    def array(self) -> np.ndarray:
        """As a NumPy array."""
        import numpy as np

        return np.frombuffer(self.data, _NUMPY[self.datatype]).reshape(self.shape)

    def values(self) -> list[Any]:
        """In a row. Texts are ``bytes``. Raises EngineMalformed."""
        count = math.prod(self.shape)
        if self.datatype == "BYTES":
            return _texts(self.data, count)
        form = _FORMATS.get(self.datatype)
        if form is None or len(self.data) != count * struct.calcsize(form):
            raise EngineMalformed(
                f"{len(self.data)} bytes are no {self.datatype} of shape {list(self.shape)}", "Is this its wire?"
            )
        return list(struct.unpack(f"<{count}{form}", self.data))


class Named(msgspec.Struct):
    """A tensor as JSON tells of it, or of its shape only."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class Answered(msgspec.Struct):
    outputs: list[Named]
    model_name: str = ""
    model_version: str | None = None


class Described(msgspec.Struct):
    """What a model takes and gives."""

    name: str
    inputs: list[Named] = []
    outputs: list[Named] = []
    versions: list[str] | None = None
    platform: str = ""


class Server(msgspec.Struct):
    name: str = ""
    version: str = ""
    extensions: list[str] = []


_answered = msgspec.json.Decoder(Answered)
_described = msgspec.json.Decoder(Described)
_server = msgspec.json.Decoder(Server)


def infer_body(inputs: Mapping[str, Tensor], *, outputs: Sequence[str] = (), binary: bool = False) -> tuple[bytes, int]:
    """The body for ``/infer``, and how much of it is JSON: all, unless ``binary``."""
    told: list[dict[str, Any]] = []
    for name, tensor in inputs.items():
        head: dict[str, Any] = {"name": name, "datatype": tensor.datatype, "shape": tensor.shape}
        told.append(
            head
            | ({"parameters": {"binary_data_size": len(tensor.data)}} if binary else {"data": _json_values(tensor)})
        )
    body: dict[str, Any] = {"inputs": told}
    if outputs:
        body["outputs"] = [{"name": name} for name in outputs]
    if binary:
        body["parameters"] = {"binary_data_output": True}
    told_json = _encode(body)
    packed = b"".join(tensor.data for tensor in inputs.values()) if binary else b""
    return told_json + packed, len(told_json)


def read_outputs(data: bytes, json_bytes: int | None) -> dict[str, Tensor]:
    """The tensors of an answer; ``json_bytes`` of it are JSON, or all. Raises EngineMalformed."""
    answered = decoded(_answered, data[:json_bytes])
    rest = memoryview(data)[len(data) if json_bytes is None else json_bytes :]
    tensors: dict[str, Tensor] = {}
    for output in answered.outputs:
        if any(size < 0 for size in output.shape):
            raise EngineMalformed(f"{output.name!r} has the shape {output.shape}", "Is this its wire?")
        size = (output.parameters or {}).get("binary_data_size")
        if isinstance(size, int):
            if not 0 <= size <= len(rest):
                raise EngineMalformed(f"{output.name!r} is cut short", "It may be asked again.")
            packed, rest = bytes(rest[:size]), rest[size:]
        else:
            packed = _packed(output.datatype, _flat(output.data or []))
        tensor = Tensor(output.datatype, tuple(output.shape), packed)
        tensor.values()  # raises where shape and data do not agree
        tensors[output.name] = tensor
    return tensors


def read_described(data: bytes) -> Described:
    """Raises EngineMalformed."""
    return decoded(_described, data)


def read_server(data: bytes) -> Server:
    """Raises EngineMalformed."""
    return decoded(_server, data)


def _json_values(tensor: Tensor) -> list[Any]:
    values = tensor.values()
    return [value.decode("utf-8", "replace") for value in values] if tensor.datatype == "BYTES" else values


def _packed(datatype: str, values: Sequence[Any]) -> bytes:
    """Raises EngineMalformed."""
    if datatype == "BYTES":
        encoded = [value.encode() if isinstance(value, str) else value for value in values]
        if all(isinstance(value, bytes) for value in encoded):
            return b"".join(_SIZE.pack(len(each)) + each for each in encoded)
    elif (form := _FORMATS.get(datatype)) is not None:
        try:
            return struct.pack(f"<{len(values)}{form}", *values)
        except (struct.error, OverflowError):
            pass
    raise EngineMalformed(f"these values are no {datatype}", "Is this its wire?")


def _flat(values: list[Any]) -> list[Any]:
    """Of rows in rows, too, as some servers have it."""
    while values and isinstance(values[0], list):
        values = [each for row in values for each in (cast("list[Any]", row) if isinstance(row, list) else [row])]
    return values


def _texts(data: bytes, count: int) -> list[bytes]:
    texts: list[bytes] = []
    at = 0
    while at + _SIZE.size <= len(data) and len(texts) < count:
        (size,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size
        texts.append(data[at : at + size])
        at += size
    if len(texts) != count or at != len(data):
        raise EngineMalformed(f"{len(data)} bytes are no {count} texts", "Is this its wire?")
    return texts
