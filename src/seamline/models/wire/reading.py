"""What the wires here read alike: JSON, and what a request asks for besides its question."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import msgspec

from seamline.models.chat import ChatRequest, Kept
from seamline.models.errors import EngineMalformed
from seamline.models.wire.errors import WireError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came, and how the answer is wanted."""

    request: ChatRequest
    stream: bool = False
    usage: bool = False
    """At the end of a stream."""


def decoded(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Raises EngineMalformed."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineMalformed(f"an answer cannot be understood: {error}", "Is this an engine of this wire?") from None


def understood(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Raises WireError."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _, _, where = str(error).partition(" - at `$.")
        raise unfit(
            where.rstrip("`"), f"the request cannot be understood: {error}", "Send what the API describes."
        ) from None


def unfit(param: str, fact: str, remedy: str) -> WireError:
    error = WireError(fact, remedy)
    error.param = param
    return error


def json_of(text: str, what: str) -> Any:
    """The value of a JSON text that a user wrote. Raises WireError."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        refused = WireError(f"{what!r} is not JSON: {error}", "Write a JSON Schema.")
        refused.param = what
        raise refused from None


def kept_of(told: Any) -> Kept:
    """What ``cache_control`` says."""
    match told:
        case {"type": "ephemeral", "ttl": "1h"}:
            return "1h"
        case {"type": "ephemeral"}:
            return "5m"
        case _:
            return ""
