"""Takes OTLP from services in other languages: over HTTP, and over gRPC where ``grpcio`` is installed.

Nothing that is sent here is trusted: sizes, counts and depths are bounded before they cost anything, one thread unpacks
one request at a time, and whoever comes when there is no room is asked to come again. A browser is refused, so that a
page somebody looks at cannot write into what they look at next.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec

from seamline.kernel.clock import Clock, SystemClock
from seamline.kernel.lifetime import Runners
from seamline.kernel.settings.observe import ObserveSettings
from seamline.kernel.wire.http1 import Exchange, Header, HttpLimits, HttpRefusal, HttpRequest, HttpServer
from seamline.observe.otlp.bounds import MalformedError, TooMuchError
from seamline.observe.otlp.errors import OtlpExtraError, OtlpListenError
from seamline.observe.otlp.reading import Bodies, busy
from seamline.observe.records import Batch

if TYPE_CHECKING:
    from seamline.observe.otlp.decoding import Decoding, Encoding, Signal
    from seamline.observe.otlp.grpc_server import GrpcServer
    from seamline.observe.otlp.mapping import Taken

UNPACKED: Final = 4
"""How many times larger a body may be once it is unpacked."""
HELD_BYTES_MAX: Final = 64 * 1024 * 1024
_BACKLOG: Final = 1024
_NO_BODY_LIMIT: Final = 2**40  # ours is looked at where it can be answered as OTLP wants it
_LIMITS: Final = HttpLimits(
    head_bytes_max=16_384,
    body_bytes_max=_NO_BODY_LIMIT,
    body_timeout_s=10.0,
    connections_max=2048,
    pipelined_max=4,
)
PATHS: Final[dict[bytes, Signal]] = {b"/v1/traces": "traces", b"/v1/logs": "logs", b"/v1/metrics": "metrics"}
TYPES: Final[dict[bytes, Encoding]] = {b"application/x-protobuf": "protobuf", b"application/json": "json"}
_CODINGS: Final = {b"": "", b"identity": "", b"gzip": "gzip", b"x-gzip": "gzip", b"deflate": "deflate"}
_REJECTED: Final[dict[Signal, str]] = {
    "traces": "rejectedSpans",
    "logs": "rejectedLogRecords",
    "metrics": "rejectedDataPoints",
}
_NUMBERS: Final = {
    "invalid_argument": 3, "deadline_exceeded": 4, "not_found": 5, "permission_denied": 7,
    "resource_exhausted": 8, "unimplemented": 12, "internal": 13, "unavailable": 14,
}  # fmt: skip


def _always() -> bool:
    return True


class OtlpReceiver:
    """Receives at ``otlp_listen`` and ``otlp_grpc_listen``, from :meth:`start` to :meth:`stop`.

    Args:
        settings: the section ``[observe]``.
        sink: is given what was taken, in the thread of the event loop; it must not wait.
        own: the names of the application's modules, which no foreign service gets.
        room: whether ``sink`` can take more; while it cannot, senders are asked to wait.
        metrics: the page of ``GET /metrics`` and its content type, by ``accept`` and by workload (``/metrics/<name>``)
            or None for all.
        clock: says which times are credible.
    """

    def __init__(
        self,
        settings: ObserveSettings,
        sink: Callable[[Batch], None],
        *,
        own: Collection[str] = (),
        room: Callable[[], bool] = _always,
        metrics: Callable[[str, str | None], tuple[bytes, str]] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.accepted = 0
        """Requests of which at least something was taken."""
        self.refused = 0
        """Requests of which nothing was taken."""
        self.rejected = 0
        """Spans, log lines and points in requests of which the rest was taken."""
        self.address: tuple[str, int] | None = None
        """Where it listens for HTTP."""
        self.grpc_address: tuple[str, int] | None = None
        self._settings = settings
        self._sink = sink
        self._own = frozenset(own)
        self._room = room
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._runners = Runners()
        self._http = HttpServer(self._handle, _limits(), runners=self._runners)
        self.bodies = Bodies(settings.otlp_bytes_max, max(HELD_BYTES_MAX, 2 * settings.otlp_bytes_max))
        self._thread = ThreadPoolExecutor(1, "otlp")
        self._decoding: Decoding | None = None
        self._began_ns = self._now_ns()
        self._server: asyncio.Server | None = None
        self._grpc: GrpcServer | None = None

    @property
    def connections(self) -> int:
        return self._http.connections

    async def start(self) -> None:
        """Raises OtlpListenError, OtlpExtraError."""
        loop = asyncio.get_running_loop()
        if self._settings.otlp_listen:
            host, port = _split(self._settings.otlp_listen)
            try:
                self._server = await loop.create_server(self._http.protocol, host, port, backlog=_BACKLOG)
            except OSError as error:
                raise self._not_listening("otlp_listen", error) from error
            self.address = self._server.sockets[0].getsockname()[:2]
        if self._settings.otlp_grpc_listen:
            await self._start_grpc(loop)

    async def stop(self) -> None:
        """Answer what has come, and close."""
        if self._server is not None:
            self._server.close()
            await self._http.drain(2.0, idle_grace_s=0.0)
        if self._grpc is not None:
            await asyncio.to_thread(self._grpc.stop)
        await self._runners.stop()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def note(self, batch: Batch) -> None:
        """What our own processes told: with it, foreign spans find the module that called them, or that they called."""
        spans = [span for span in batch.spans if span.kind != "internal"]
        if spans and self._decoding is not None:
            self._thread.submit(self._decoding.note, spans)

    # One request, however it came.

    def take(self, signal: Signal, encoding: Encoding, coding: str, body: bytes) -> Taken:
        """In the thread. Raises MalformedError, TooMuchError."""
        now_ns = self._now_ns()
        if self._decoding is None:
            self._decoding = self._make_decoding()
        return self._decoding.take(signal, encoding, coding, body, now_ns)

    def hand_on(self, taken: Taken) -> None:
        """In the loop."""
        for batch in taken.batches:
            self._sink(batch)
        self.rejected += taken.rejected
        self.accepted += 1

    def _make_decoding(self) -> Decoding:
        # The first request pays for what an application without foreign services never needs.
        from seamline.observe.otlp.decoding import Decoding
        from seamline.observe.otlp.mapping import Mapper

        mapper = Mapper(self._own, self._began_ns, self._settings.history_days)
        return Decoding(mapper, self._settings.otlp_bytes_max * UNPACKED)

    def _now_ns(self) -> int:
        return int(self._clock.now().timestamp() * 1e9)

    # HTTP

    async def _handle(self, exchange: Exchange) -> None:
        # What is told as an error is told in the sender's own encoding, as far as it is known.
        kind = _media_type(exchange)
        encoding: Encoding = TYPES.get(kind, "json")
        try:
            if self._is_scrape(exchange.request):
                self._show_metrics(exchange)
                return
            body = await self._answer(exchange, kind)
            exchange.respond(200, [_content_type(encoding)], body)
        except HttpRefusal as refusal:
            self.refused += 1
            if not exchange.started:
                exchange.respond(
                    refusal.status, [_content_type(encoding), *refusal.headers], _failure(refusal, encoding)
                )

    def _is_scrape(self, request: HttpRequest) -> bool:
        return self._metrics is not None and request.path.split(b"/", 2)[1] == b"metrics"

    def _show_metrics(self, exchange: Exchange) -> None:
        assert self._metrics is not None
        request = exchange.request
        if request.method not in {"GET", "HEAD"}:
            raise HttpRefusal(405, "unimplemented", "metrics are fetched with GET", [(b"allow", b"GET, HEAD")])
        _check_no_browser(request)
        workload = request.path.removeprefix(b"/metrics").strip(b"/").decode("latin-1")
        page, kind = self._metrics((request.header(b"accept") or b"").decode("latin-1"), workload or None)
        exchange.respond(200, [(b"content-type", kind.encode("ascii"))], page)

    async def _answer(self, exchange: Exchange, kind: bytes) -> bytes:
        signal, coding = self._checked(exchange, kind)
        encoding = TYPES[kind]
        held = await self.bodies.read(exchange.request)
        try:
            loop = asyncio.get_running_loop()
            taken = await loop.run_in_executor(self._thread, self.take, signal, encoding, coding, held.data)
        except TooMuchError as error:
            raise HttpRefusal(413, "resource_exhausted", str(error)) from error
        except MalformedError as error:
            raise HttpRefusal(400, "invalid_argument", str(error)) from error
        finally:
            held.let_go()
        self.hand_on(taken)
        return success(signal, encoding, taken)

    def _checked(self, exchange: Exchange, kind: bytes) -> tuple[Signal, str]:
        """Whether it can be an export at all, before any of its body is read."""
        request = exchange.request
        signal = PATHS.get(request.path)
        if signal is None:
            raise HttpRefusal(404, "not_found", "OTLP is taken at /v1/traces, /v1/logs and /v1/metrics")
        if request.method != "POST":
            raise HttpRefusal(405, "unimplemented", "OTLP is sent with POST", [(b"allow", b"POST")])
        _check_no_browser(request)
        if kind not in TYPES:
            fact = "the content-type is not application/x-protobuf or application/json"
            raise HttpRefusal(415, "invalid_argument", fact)
        coding = _CODINGS.get((request.header(b"content-encoding") or b"").strip().lower())
        if coding is None:
            raise HttpRefusal(415, "invalid_argument", "the content-encoding is not gzip, deflate or identity")
        if not self._room():
            raise busy("more came than can be written down")
        return signal, coding

    # gRPC

    async def _start_grpc(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            from seamline.observe.otlp.grpc_server import GrpcServer
        except ImportError as error:
            raise OtlpExtraError("seamline.toml [observe] otlp_grpc_listen") from error
        host, port = _split(self._settings.otlp_grpc_listen)
        self._grpc = GrpcServer(self, loop, self._thread, self._room, self._settings.otlp_bytes_max)
        try:
            bound = await asyncio.to_thread(self._grpc.start, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except (OSError, RuntimeError) as error:
            raise self._not_listening("otlp_grpc_listen", error) from error
        self.grpc_address = (host, bound)

    def _not_listening(self, key: str, error: Exception) -> OtlpListenError:
        address = getattr(self._settings, key)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return OtlpListenError(
            f"OTLP cannot be taken at {address}: {reason.lower()}",
            f'Stop what holds that port, or name another one with {key} = "127.0.0.1:0".',
            place=f"seamline.toml [observe] {key}",
        )


def _limits() -> HttpLimits:
    """No more than half of the files that the process may have open: the store and the portal need theirs."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return _LIMITS
    return replace(_LIMITS, connections_max=min(_LIMITS.connections_max, max(files // 2, 64)))


def success(signal: Signal, encoding: Encoding, taken: Taken) -> bytes:
    """Export...ServiceResponse: empty, or with what was not taken and why."""
    if not taken.rejected and not taken.reason:
        return b"" if encoding == "protobuf" else b"{}"
    if encoding == "json":
        partial = {_REJECTED[signal]: str(taken.rejected), "errorMessage": taken.reason}
        return msgspec.json.encode({"partialSuccess": partial})
    from seamline.observe.otlp import messages, protobuf

    return protobuf.write(messages.Answer(messages.PartialSuccess(taken.rejected, taken.reason)))


def _failure(refusal: HttpRefusal, encoding: Encoding) -> bytes:
    """google.rpc.Status."""
    number = _NUMBERS.get(refusal.code, 2)
    if encoding == "json":
        return msgspec.json.encode({"code": number, "message": refusal.message})
    from seamline.observe.otlp import messages, protobuf

    return protobuf.write(messages.Failure(number, refusal.message))


def _media_type(exchange: Exchange) -> bytes:
    return (exchange.request.header(b"content-type") or b"").partition(b";")[0].strip().lower()


def _content_type(encoding: Encoding) -> Header:
    return (b"content-type", b"application/x-protobuf" if encoding == "protobuf" else b"application/json")


def _check_no_browser(request: HttpRequest) -> None:
    """A page that somebody looks at must not write into what they look at next, or read it."""
    if request.header(b"origin") is not None or request.header(b"sec-fetch-site") is not None:
        raise HttpRefusal(403, "permission_denied", "telemetry is not exchanged with browsers")


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
