"""A request's bytes into batches. All of this runs in one thread, one request at a time, so that however many ask at
once, no more than one is unpacked."""

from __future__ import annotations

import zlib
from typing import Final, Literal

import msgspec

from seamline.observe.otlp.bounds import OBJECTS_MAX, MalformedError, TooMuchError
from seamline.observe.otlp.mapping import Mapper, Taken
from seamline.observe.otlp.messages import Logs, Metrics, Request, Traces
from seamline.observe.otlp.protobuf import Reader
from seamline.observe.otlp.values import decode_hook
from seamline.observe.records import Span

Signal = Literal["traces", "logs", "metrics"]
Encoding = Literal["protobuf", "json"]

KINDS: Final[dict[Signal, type[Request]]] = {"traces": Traces, "logs": Logs, "metrics": Metrics}
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
_MEMBERS_MAX: Final = 64
_GZIP: Final = 16 + zlib.MAX_WBITS


class Decoding:
    """Reads requests.

    Args:
        mapper: makes records of what was read.
        decoded_bytes_max: of a body, once it is unpacked.
    """

    def __init__(self, mapper: Mapper, decoded_bytes_max: int) -> None:
        self._mapper = mapper
        self._decoded_bytes_max = decoded_bytes_max
        self._reader = Reader()
        self._json = {
            signal: msgspec.json.Decoder(kind, strict=False, dec_hook=decode_hook) for signal, kind in KINDS.items()
        }

    def take(self, signal: Signal, encoding: Encoding, coding: str, body: bytes, now_ns: int) -> Taken:
        """Raises MalformedError, TooMuchError."""
        if coding:
            body = inflate(body, coding, self._decoded_bytes_max)
        request = self._reader.read(KINDS[signal], body) if encoding == "protobuf" else self._read_json(signal, body)
        return self._mapper.take(request, now_ns)

    def note(self, spans: list[Span]) -> None:
        """Our own spans, which foreign ones may have as parents."""
        self._mapper.edges.note(spans)

    def _read_json(self, signal: Signal, body: bytes) -> Request:
        if body.count(b"{") > OBJECTS_MAX:
            raise TooMuchError(f"the request holds more than {OBJECTS_MAX} objects")
        try:
            return self._json[signal].decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise MalformedError(f"the JSON is not an export request: {str(error)[:300]}") from error
        except RecursionError:
            raise MalformedError("the JSON is nested too deeply") from None


def inflate(body: bytes, coding: str, size_max: int) -> bytes:
    """Unpack ``gzip`` or ``deflate``, no further than to ``size_max``. Raises MalformedError, TooMuchError."""
    parts: list[bytes] = []
    size = 0
    try:
        while True:
            coder = zlib.decompressobj(_GZIP if coding == "gzip" else _GZIP_OR_ZLIB)
            part = coder.decompress(body, size_max - size + 1)
            size += len(part)
            parts.append(part)
            if size > size_max:
                raise TooMuchError(f"the body is larger than {size_max} bytes when unpacked")
            if not coder.eof:
                raise MalformedError(f"the {coding} body ends too early")
            body = coder.unused_data
            if not body or coding != "gzip":
                break
            if len(parts) >= _MEMBERS_MAX:
                raise TooMuchError(f"the body has more than {_MEMBERS_MAX} gzip members")
    except zlib.error as error:
        raise MalformedError(f"the body is not {coding}") from error
    if body:
        raise MalformedError(f"something stands behind the {coding} body")
    return parts[0] if len(parts) == 1 else b"".join(parts)
