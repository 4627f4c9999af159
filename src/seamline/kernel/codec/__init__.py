"""Values to JSON and back, by type: one codec for both wires and for ``isolation = "copy"``.

Types that msgspec reads and writes without loss go through msgspec. Types that hold a pydantic model,
a float (NaN and infinities are written as strings, as proto3 JSON does) or an ambiguous union go through
pydantic-core. A union is ambiguous when two of its members look alike in JSON, such as ``datetime | str`` or two
dataclasses; its values travel as ``{"type": "datetime", "value": ...}``, so that what arrives is what was sent.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from seamline.kernel.codec.shapes import UnsupportedTypeError, inspect_type, type_name, with_article
from seamline.kernel.errors import SeamlineError

__all__ = ["Codec", "CodecError", "UnsupportedTypeError", "codec", "inspect_type", "type_name", "with_article"]

T = TypeVar("T")


class CodecError(SeamlineError):
    """SL1101: bytes that do not fit the type they should hold.

    ``path`` is the JSON path of what does not fit, such as ``$.lines[2].sku``, and ``detail`` what is wrong with it.
    """

    code = "SL1101"
    path = "$"
    detail = ""


class Codec(Generic[T]):
    """Encodes and decodes values of one type. Build it with :func:`codec`.

    Attributes:
        encode: the value as JSON; raises what the library underneath raises.
        decode: the value in the bytes; raises :class:`CodecError` when they do not fit.
    """

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation
        self.shape = inspect_type(annotation)
        if self.shape.native:
            self.encode: Any = _ENCODER.encode
            self.decode = _decoder(msgspec.json.Decoder[T](annotation).decode, annotation)
        else:
            # Heavy, and not needed by most types.
            from seamline.kernel.codec.by_pydantic import pydantic_functions

            self.encode, decode = pydantic_functions(annotation)
            self.decode = _decoder(decode, annotation)

    def copy(self, value: T) -> T:
        """What the value would be on the other side of the wire."""
        return self.decode(self.encode(value))

    def schema(self) -> dict[str, Any]:
        """JSON Schema (draft 2020-12) of the value on the wire."""
        if self.shape.native:
            return msgspec.json.schema(self.annotation)
        from pydantic import TypeAdapter

        return TypeAdapter[Any](self.annotation).json_schema(mode="serialization")


def _decoder(decode: Callable[[bytes], Any], annotation: Any) -> Callable[[bytes], Any]:
    def decode_or_explain(data: bytes) -> Any:
        try:
            return decode(data)
        except Exception as error:  # also whatever a user's own validator or __post_init__ raises
            detail = " ".join(str(error).split())[:300]
            found = CodecError(f"the data is not {with_article(type_name(annotation))}: {detail}")
            found.path, found.detail = _path_and_detail(error, detail)
            raise found from None

    return decode_or_explain


def _path_and_detail(error: Exception, message: str) -> tuple[str, str]:
    describe = getattr(error, "errors", None)  # of a pydantic ValidationError
    if describe is not None:
        first = describe(include_url=False, include_context=False, include_input=False)[0]
        steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"]]
        return "$" + "".join(steps), str(first["msg"])
    detail, _, path = message.partition(" - at `")
    path = path.rstrip("`") or "$"
    missing = re.search(r"missing required field `([^`]+)`", detail)
    return (f"{path}.{missing[1]}" if missing else path), detail


_ENCODER = msgspec.json.Encoder(decimal_format="string", uuid_format="canonical")


@functools.lru_cache(maxsize=4096)
def _codec(annotation: Any) -> Codec[Any]:
    return Codec(annotation)


def codec(annotation: Any) -> Codec[Any]:
    """The codec of a type, built once. Raises :class:`UnsupportedTypeError`."""
    try:
        return _codec(annotation)
    except TypeError as error:
        if "unhashable" in str(error):
            return Codec(annotation)
        raise UnsupportedTypeError(f"{type_name(annotation)} cannot be encoded: {error}") from error
