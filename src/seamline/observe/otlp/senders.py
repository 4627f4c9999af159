"""One export request to a backend, by one of the three transports, and what its answer means."""

from __future__ import annotations

import asyncio
import base64
import ssl
import zlib
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from seamline.kernel.clock import Clock
from seamline.kernel.wire.http1_client import HttpPool
from seamline.observe.otlp import protobuf
from seamline.observe.otlp.bounds import MalformedError, TooMuchError
from seamline.observe.otlp.errors import OtlpExtraError
from seamline.observe.otlp.messages import Answer, Request
from seamline.observe.otlp.values import encode_hook

TIMEOUT_S: Final = 10.0
_ANSWER_BYTES_MAX: Final = 64 * 1024
_PACKED_FROM_BYTES: Final = 1024
AGAIN: Final = frozenset({429, 502, 503, 504})
_PATHS: Final = {"traces": "v1/traces", "logs": "v1/logs", "metrics": "v1/metrics"}
_METHODS: Final = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}


class Outcome(NamedTuple):
    """What became of one request. ``trouble`` is empty where it was taken."""

    trouble: str = ""
    again: bool = False
    """It may be sent again."""
    after_s: float = 0.0
    """But not sooner than that, if the backend said so."""
    rejected: int = 0
    """Of one that was taken: what was not."""


class Sender(Protocol):
    json: bool

    async def send(self, signal: str, request: Request) -> Outcome: ...
    async def close(self) -> None: ...


class HttpSender:
    """Over HTTP, packed with gzip. ``headers`` may hold secrets: they are sent, and shown nowhere."""

    def __init__(self, url: str, headers: Mapping[str, str], *, json: bool, clock: Clock) -> None:
        parts = urlsplit(url)
        self.json = json
        self._clock = clock
        self._base = parts.path.rstrip("/")
        kind = b"application/json" if json else b"application/x-protobuf"
        self._headers = [(b"content-type", kind), *_encoded(_credentials(url) | dict(headers))]
        secure = parts.scheme == "https"
        self._pool = HttpPool(
            parts.hostname or "",
            parts.port or (443 if secure else 80),
            ssl.create_default_context() if secure else None,
            connections_max=4,
        )

    async def send(self, signal: str, request: Request) -> Outcome:
        body, packed = await asyncio.to_thread(self._body, request)
        headers = [*self._headers, (b"content-encoding", b"gzip")] if packed else self._headers
        path = f"{self._base}/{_PATHS[signal]}"
        try:
            # That it may be sent again when a kept connection turns out dead: a backend that gets it twice sees so.
            response = await self._pool.request("POST", path, headers, body, TIMEOUT_S, replayable=True)
            answer = await response.read_all(_ANSWER_BYTES_MAX)
        except (OSError, TimeoutError) as error:
            return Outcome(f"{type(error).__name__}: {error}"[:300], again=True)
        status = response.status
        if 200 <= status < 300:
            return Outcome(rejected=_rejected(response.header(b"content-type") or b"", answer))
        if status in AGAIN:
            after_s = self._retry_after(response.header(b"retry-after") or b"")
            return Outcome(f"it answers with status {status}", again=True, after_s=after_s)
        return Outcome(f"it answers with status {status}")

    async def close(self) -> None:
        await self._pool.close()

    def _body(self, request: Request) -> tuple[bytes, bool]:
        body = msgspec.json.encode(request, enc_hook=encode_hook) if self.json else protobuf.write(request)
        if len(body) < _PACKED_FROM_BYTES:
            return body, False
        coder = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        return coder.compress(body) + coder.flush(), True

    def _retry_after(self, told: bytes) -> float:
        """Seconds, from a number or a date."""
        text = told.decode("latin-1").strip()
        if text.isdigit():
            return float(text[:9])
        try:
            when = parsedate_to_datetime(text)
            return max((when - self._clock.now()).total_seconds(), 0.0)
        except (TypeError, ValueError):
            return 0.0


class GrpcSender:
    """Over gRPC, by ``grpcio``, each call in a thread."""

    json = False

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        try:
            import grpc  # an extra: only who sends by gRPC needs it
        except ImportError as error:
            raise OtlpExtraError("seamline.toml [telemetry] otlp_protocol") from error
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        secure = parts.scheme == "https"
        target = f"{host}:{parts.port or (443 if secure else 4317)}"
        self._grpc: Any = grpc
        self._channel: Any = (
            grpc.secure_channel(target, grpc.ssl_channel_credentials()) if secure else grpc.insecure_channel(target)
        )
        self._metadata = [(k.lower(), v) for k, v in (_credentials(url) | dict(headers)).items()]
        self._calls = {signal: self._channel.unary_unary(method) for signal, method in _METHODS.items()}

    async def send(self, signal: str, request: Request) -> Outcome:
        return await asyncio.to_thread(self._send, signal, request)

    async def close(self) -> None:
        await asyncio.to_thread(self._channel.close)

    def _send(self, signal: str, request: Request) -> Outcome:
        grpc = self._grpc
        body = protobuf.write(request)
        try:
            answer = self._calls[signal](
                body, timeout=TIMEOUT_S, metadata=self._metadata, compression=grpc.Compression.Gzip
            )
        except grpc.RpcError as error:
            code = error.code()
            told = any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ())
            again = code.name in _GRPC_AGAIN or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and told)
            return Outcome(f"it answers {code.name.lower()}", again=again)
        return Outcome(rejected=_rejected(b"application/x-protobuf", answer))


_GRPC_AGAIN: Final = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)


def _credentials(url: str) -> dict[str, str]:
    """What stands before the ``@`` of a URL, as a header."""
    parts = urlsplit(url)
    if not parts.username:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def _rejected(kind: bytes, answer: bytes) -> int:
    """How many the backend did not take, if it says so in a way that can be read."""
    if not answer:
        return 0
    try:
        if kind.startswith(b"application/json"):
            partial = msgspec.json.decode(answer)["partialSuccess"]
            return max((int(value) for key, value in partial.items() if key.startswith("rejected")), default=0)
        read = protobuf.Reader().read(Answer, answer)
        return read.partial_success.rejected if read.partial_success else 0
    except (MalformedError, TooMuchError, msgspec.MsgspecError, KeyError, TypeError, ValueError, AttributeError):
        return 0
