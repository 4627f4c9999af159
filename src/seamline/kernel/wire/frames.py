"""The ``seamline/1`` wire: length-prefixed frames, many calls on one connection.

A frame is ``length (4 bytes) | type (1) | stream (4) | payload``, big endian; ``length`` counts the payload.
A stream is one call; the client numbers them upwards. All bodies are JSON made by ``kernel.codec``.

    CALL    client → server   head length (2) | head (MessagePack, CallHead) | body: the method's parameters
    ITEM    both ways         one item of a stream
    END     both ways         the stream has no more items
    RESULT  server → client   the result; the call is over
    FAULT   server → client   what went wrong (JSON, ErrorBody); the call is over
    CANCEL  client → server   nobody waits for the answer any more
    CREDIT  both ways         bytes (4) of items that the peer may send on the stream beyond what it has
    PING, PONG                is the peer alive; the payload comes back. A PONG for no PING, of a stream other than 0 or
                              without a payload, tells a client how many calls are under way there: the stream's
                              number; and what is ahead of one more (Ahead), where the callee knows
    GOAWAY  server → client   begin no new calls here; those under way are finished. With a payload (JSON, ErrorBody)
                              the client is not let in at all, and why

A sender of items begins with a credit of ``STREAM_CREDIT`` bytes per stream and waits when it is spent. A frame that
is longer than the receiver's limit is skipped without being stored, and its call is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import msgspec

ALPN = "seamline/1"
CALL, ITEM, END, RESULT, FAULT, CANCEL, CREDIT, PING, PONG, GOAWAY = range(1, 11)
HEADER = struct.Struct(">IBI")
HEADER_BYTES = HEADER.size
HEAD_LENGTH = struct.Struct(">H")
CREDIT_AMOUNT = struct.Struct(">I")
AHEAD = struct.Struct(">III")
STREAM_CREDIT = 262_144
PAYLOAD_BYTES_MAX = 4 * 1024 * 1024

OnFrame = Callable[[int, int, bytes], None]


class CallHead(msgspec.Struct, array_like=True, gc=False):
    """What goes before a call's body. ``timeout_ms`` 0 means no deadline."""

    method: str
    timeout_ms: int = 0
    priority: int = 1
    trace: bytes | None = None
    """Trace id (16), the caller's span id (8), flags as in ``traceparent`` (1), and what the trace carries: its
    ``tracestate``, a line feed, its ``baggage``."""
    key: str | None = None
    subject: str | None = None
    """The proof of on whose behalf it is made (see ``mesh/identity/links``)."""


class ErrorBody(msgspec.Struct, omit_defaults=True):
    """A call's failure. ``code`` is Connect's code; ``error`` is a stable code SLnnnn or a fault's name."""

    code: str
    message: str = ""
    error: str = ""
    remedy: str = ""
    detail: msgspec.Raw = msgspec.Raw(b"")
    retry: bool = False
    """The handler certainly did not run."""


class Ahead(NamedTuple):
    """What one more call has before it where answers are made token by token; in microseconds on the wire."""

    wait_s: float
    """What is still to be read and said for others."""
    serve_s: float
    """What a usual call then takes by itself."""
    each_s: float
    """What each further call adds to the wait."""


class FrameError(Exception):
    """The peer does not speak ``seamline/1``; the connection is of no more use."""


_head_encoder = msgspec.msgpack.Encoder()
_head_decoder = msgspec.msgpack.Decoder(CallHead)
_error_decoder = msgspec.json.Decoder(ErrorBody)


def frame(kind: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return HEADER.pack(len(payload), kind, stream) + payload


def call_frame(stream: int, head: CallHead, body: bytes) -> bytes:
    """A CALL frame."""
    encoded = _head_encoder.encode(head)
    length = len(encoded)
    return HEADER.pack(2 + length + len(body), CALL, stream) + HEAD_LENGTH.pack(length) + encoded + body


def read_call(payload: bytes) -> tuple[CallHead, bytes]:
    """Head and body of a CALL payload. Raises FrameError."""
    if len(payload) < 2:
        raise FrameError("a CALL frame without a head")
    (length,) = HEAD_LENGTH.unpack_from(payload)
    try:
        return _head_decoder.decode(payload[2 : 2 + length]), payload[2 + length :]
    except (msgspec.DecodeError, ValueError) as error:
        raise FrameError(f"a CALL frame with a malformed head: {error}") from None


def read_credit(payload: bytes) -> int:
    """Bytes granted by a CREDIT payload. Raises FrameError."""
    if len(payload) != 4:
        raise FrameError("a CREDIT frame that is not four bytes long")
    return int(CREDIT_AMOUNT.unpack(payload)[0])


def told_frame(under_way: int, ahead: Ahead | None = None) -> bytes:
    """A PONG that tells of load. What is ahead is left out where nothing is under way."""
    if ahead is None or not under_way:
        return frame(PONG, under_way)
    return frame(PONG, under_way, AHEAD.pack(*(min(int(seconds * 1e6), 0xFFFF_FFFF) for seconds in ahead)))


def read_ahead(payload: bytes) -> Ahead | None:
    """Of a PONG that tells of load; None where it says nothing that is understood."""
    if len(payload) != AHEAD.size:
        return None
    wait_us, serve_us, each_us = AHEAD.unpack(payload)
    return Ahead(wait_us / 1e6, serve_us / 1e6, each_us / 1e6)


def read_error(payload: bytes) -> ErrorBody:
    """The body of a FAULT payload; a malformed one reads as an internal error."""
    try:
        return _error_decoder.decode(payload)
    except (msgspec.DecodeError, ValueError):
        return ErrorBody("internal", "the peer sent an error that could not be read")


class FrameReader:
    """Cuts a byte stream into frames.

    Args:
        on_frame: called with (type, stream, payload) for every whole frame.
        on_oversize: called with (type, stream, length) for a frame that is too long; its payload is skipped.
        payload_bytes_max: the longest payload that is stored, in bytes.
    """

    __slots__ = ("_max", "_need", "_on_frame", "_on_oversize", "_rest", "_skip")

    def __init__(
        self,
        on_frame: OnFrame,
        on_oversize: Callable[[int, int, int], None],
        payload_bytes_max: int = PAYLOAD_BYTES_MAX,
    ) -> None:
        self._on_frame = on_frame
        self._on_oversize = on_oversize
        self._max = payload_bytes_max
        self._rest = bytearray()
        self._need = HEADER_BYTES
        self._skip = 0

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._rest) or self._skip > 0

    def feed(self, data: bytes) -> bool:
        """Take bytes from the network. Raises FrameError when they cannot be frames.

        True unless all of them belong to a frame that had begun before and has not ended.
        """
        if self._skip:
            if len(data) < self._skip:
                self._skip -= len(data)
                return False
            data = data[self._skip :]
            self._skip = 0
        if self._rest:
            self._rest += data
            if len(self._rest) < self._need:
                return False
            data = bytes(self._rest)
            self._rest.clear()
        position, end = 0, len(data)
        on_frame = self._on_frame
        self._need = HEADER_BYTES
        while end - position >= HEADER_BYTES:
            length, kind, stream = HEADER.unpack_from(data, position)
            if not 0 < kind < 11:
                raise FrameError(f"there is no frame of type {kind}")
            begin = position + HEADER_BYTES
            if length > self._max:
                self._on_oversize(kind, stream, length)
                skipped = min(length, end - begin)
                self._skip = length - skipped
                position = begin + skipped
                continue
            if end - begin < length:
                self._need = HEADER_BYTES + length
                break
            position = begin + length
            on_frame(kind, stream, data[begin:position])
        if position < end:
            self._rest += data[position:]
        return True
