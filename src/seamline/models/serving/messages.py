"""What a model's process and its host tell each other, over a socket that nobody else has.

Each message is its length (4 bytes, big endian) and a MessagePack array that begins with its kind. Arguments and
answers in it are as the contract's codec writes them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

_LENGTH = struct.Struct(">I")


class _Message(msgspec.Struct, array_like=True, tag=True, frozen=True):
    pass


class Begin(_Message, frozen=True):
    """To the process: which model it is."""

    cls: str
    """``package.module:Class``, as is the contract."""
    contract: str
    path: list[str]
    concurrency: int
    artefacts: str = ""
    digest: str = ""
    warm: list[tuple[str, bytes]] = []


class Ask(_Message, frozen=True):
    """To the process: some calls of one method, which it answers with one Answered."""

    id: int
    method: str
    calls: list[bytes]


class Stream(_Message, frozen=True):
    """To the process: begin a stream. It answers with Items and a StreamEnd."""

    id: int
    method: str
    call: bytes
    credit: int


class Credit(_Message, frozen=True):
    """To the process: so many more items may come."""

    id: int
    items: int


class Leave(_Message, frozen=True):
    """To the process: nobody reads the stream any more."""

    id: int


class Ready(_Message, frozen=True):
    """From the process: loaded and warm."""

    rss_bytes: int


class Failed(_Message, frozen=True):
    """From the process: it cannot be loaded."""

    why: str


class Answer(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One call's answer; ``error`` is an ErrorBody in JSON, with which there is no result."""

    result: bytes = b""
    error: bytes = b""


class Answered(_Message, frozen=True):
    """From the process: the answers of one Ask, in order. With ``error`` the whole of them failed."""

    id: int
    answers: list[Answer]
    rss_bytes: int
    error: bytes = b""


class Item(_Message, frozen=True):
    """From the process."""

    id: int
    item: bytes


class StreamEnd(_Message, frozen=True):
    """From the process."""

    id: int
    rss_bytes: int
    error: bytes = b""


ToProcess = Begin | Ask | Stream | Credit | Leave
FromProcess = Ready | Failed | Answered | Item | StreamEnd

_encoder = msgspec.msgpack.Encoder()
to_process = msgspec.msgpack.Decoder(ToProcess)
from_process = msgspec.msgpack.Decoder(FromProcess)


def framed(message: ToProcess | FromProcess) -> bytes:
    data = _encoder.encode(message)
    return _LENGTH.pack(len(data)) + data


class Frames:
    """Cuts what comes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            whole = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield whole
