"""What the Connect protocol writes: error bodies, status codes, envelopes.

Source: the Connect protocol's reference for unary and streaming RPCs over HTTP. A fault or a call error of ours
also travels whole in a detail of type ``seamline.Error``, so that our own client loses nothing.
"""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec

from seamline.kernel.wire.frames import ErrorBody

ENVELOPE = struct.Struct(">BI")
COMPRESSED, END_STREAM = 0x01, 0x02
DETAIL_TYPE = "seamline.Error"

HTTP_STATUS = {
    "canceled": 499, "unknown": 500, "invalid_argument": 400, "deadline_exceeded": 504, "not_found": 404,
    "already_exists": 409, "permission_denied": 403, "resource_exhausted": 429, "failed_precondition": 400,
    "aborted": 409, "out_of_range": 400, "unimplemented": 501, "internal": 500, "unavailable": 503,
    "data_loss": 500, "unauthenticated": 401,
}  # fmt: skip
_CODE_OF_STATUS = {
    400: "internal", 401: "unauthenticated", 403: "permission_denied", 404: "unimplemented",
    429: "unavailable", 502: "unavailable", 503: "unavailable", 504: "unavailable",
}  # fmt: skip


class EnvelopeError(ValueError):
    """A body that is not a sequence of envelopes."""


def envelope(data: bytes, flags: int = 0) -> bytes:
    """One message of a stream."""
    return ENVELOPE.pack(flags, len(data)) + data


class EnvelopeReader:
    """Cuts a body into (flags, message); a message longer than ``message_bytes_max`` is refused unread."""

    def __init__(self, message_bytes_max: int) -> None:
        self._buffer = bytearray()
        self._max = message_bytes_max

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take bytes; the messages that are now whole. Raises EnvelopeError."""
        buffer = self._buffer
        buffer += data
        found: list[tuple[int, bytes]] = []
        while len(buffer) >= ENVELOPE.size:
            flags, length = ENVELOPE.unpack_from(buffer)
            if flags & COMPRESSED:
                raise EnvelopeError("compressed messages were not offered")
            if length > self._max:
                raise EnvelopeError(f"a message of {length} bytes is longer than {self._max}")
            end = ENVELOPE.size + length
            if len(buffer) < end:
                break
            found.append((flags, bytes(buffer[ENVELOPE.size : end])))
            del buffer[:end]
        return found

    @property
    def partial(self) -> bool:
        return bool(self._buffer)


def error_json(body: ErrorBody) -> dict[str, Any]:
    """A call's failure as Connect writes it."""
    whole = msgspec.json.encode(body)
    said = f"{body.message}. {body.remedy}" if body.remedy else body.message
    return {
        "code": body.code,
        "message": f"{body.error}: {said}".strip(" :"),
        "details": [
            {
                "type": DETAIL_TYPE,
                "value": base64.b64encode(whole).decode().rstrip("="),
                "debug": msgspec.json.decode(whole),
            }
        ],
    }


def read_error_json(data: Any, status: int = 500) -> ErrorBody:
    """The failure in a Connect error, or what an HTTP status alone tells."""
    fallback = ErrorBody(_CODE_OF_STATUS.get(status, "unknown"), f"the callee answered with HTTP status {status}")
    if not isinstance(data, dict):
        return fallback
    error: dict[str, Any] = data  # pyright: ignore[reportUnknownVariableType]
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():  # pyright: ignore[reportUnknownVariableType]
        if isinstance(detail, dict) and detail.get("type") == DETAIL_TYPE:  # pyright: ignore[reportUnknownMemberType]
            value = str(detail.get("value", ""))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            try:
                return msgspec.json.decode(base64.b64decode(value + "=" * (-len(value) % 4)), type=ErrorBody)
            except (ValueError, msgspec.DecodeError):
                break
    code = error.get("code")
    if code not in HTTP_STATUS:
        return fallback
    return ErrorBody(str(code), str(error.get("message", "")))
