"""Values as the other side of a wire would see them: arguments and streams encoded, and copies in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from seamline.kernel.codec import Codec, CodecError
from seamline.mesh.outcome import Refusal
from seamline.module.contract import MethodSpec
from seamline.module.errors import InvalidArgument

T = TypeVar("T")


def unfit(what: str, error: Exception) -> InvalidArgument:
    """The caller gave a value that is not of the declared type."""
    detail = error.fact if isinstance(error, CodecError) else str(error)
    return InvalidArgument(
        f"{what} not fit: {' '.join(detail.split())[:300]}", "Pass values of the types that the contract declares."
    )


class Upstream:
    """The caller's own stream, encoded item by item; ``touched`` once any of it was asked for."""

    __slots__ = ("_encode", "_items", "_method", "touched")

    def __init__(self, items: Any, encode: Callable[[Any], bytes], method: str) -> None:
        self._items: AsyncIterator[Any] = aiter(items)
        self._encode = encode
        self._method = method
        self.touched = False

    def __aiter__(self) -> Upstream:
        return self

    async def __anext__(self) -> bytes:
        self.touched = True
        item = await anext(self._items)
        try:
            return self._encode(item)
        except Exception as error:
            raise unfit(f"an item of the stream given to {self._method} does", error) from None


def encode_arguments(spec: MethodSpec, arguments: tuple[Any, ...]) -> tuple[bytes, Upstream | None]:
    """The parameters as they travel, and the caller's stream. Raises InvalidArgument."""
    try:
        if spec.item is None:
            return spec.encode_request(arguments), None
        return spec.encode_request(arguments[:-1]), Upstream(arguments[-1], spec.item.encode, spec.full_name)
    except Exception as error:
        raise unfit(f"the arguments of {spec.full_name} do", error) from None


def copy_arguments(spec: MethodSpec, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments as a callee in another process would get them. Raises InvalidArgument."""
    body, upstream = encode_arguments(spec, arguments)
    try:
        copied = spec.decode_request(body)
    except CodecError as error:
        raise unfit(f"the arguments of {spec.full_name} do", error) from None
    if upstream is None or spec.item is None:
        return copied
    return (*copied, decoded_items(callers_own(upstream), spec.item, spec.full_name))


async def callers_own(items: AsyncIterator[T]) -> AsyncIterator[T]:
    """The caller's stream as a handler in its process reads it: what it raises is the caller's, as over a wire."""
    try:
        async for item in items:
            yield item
    except Exception as error:
        raise Refusal(error) from None


async def decoded_items(items: AsyncIterator[bytes], item: Codec[Any], method: str) -> AsyncIterator[Any]:
    """The caller's stream as the handler reads it; what does not fit is the caller's mistake, not the handler's."""
    async for data in items:
        try:
            value = item.decode(data)
        except CodecError as error:
            raise Refusal(unfit(f"an item of the stream given to {method} does", error)) from None
        yield value
