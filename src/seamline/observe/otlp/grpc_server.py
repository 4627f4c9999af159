"""OTLP over gRPC. The messages are ours, so that no generated classes are needed; ``grpcio`` carries the bytes.

Its threads wait for the same thread that reads what comes over HTTP.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, cast

import grpc

from seamline.observe.otlp import protobuf
from seamline.observe.otlp.bounds import MalformedError, TooMuchError
from seamline.observe.otlp.messages import Failure

if TYPE_CHECKING:
    from seamline.observe.otlp.decoding import Signal
    from seamline.observe.otlp.receiver import OtlpReceiver

_METHODS: Final[dict[str, Signal]] = {
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": "traces",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export": "logs",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": "metrics",
}
_THREADS: Final = 4
_AT_ONCE: Final = 16
_TAKE_S: Final = 30.0
# RetryInfo { retry_delay { seconds: 1 } }: without it a client must take "exhausted" as final.
_RETRY_INFO: Final = b"\x0a\x28type.googleapis.com/google.rpc.RetryInfo\x12\x04\x0a\x02\x08\x01"


class GrpcServer:
    """Serves the three export methods.

    Args:
        receiver: takes what comes.
        loop: where what was taken is handed on.
        thread: where it is read.
        room: whether more can be taken.
        bytes_max: of one message, also once it is unpacked.
    """

    def __init__(
        self,
        receiver: OtlpReceiver,
        loop: asyncio.AbstractEventLoop,
        thread: ThreadPoolExecutor,
        room: Callable[[], bool],
        bytes_max: int,
    ) -> None:
        self._receiver = receiver
        self._loop = loop
        self._thread = thread
        self._room = room
        self._bytes_max = bytes_max
        self._server: Any = None
        self._workers = ThreadPoolExecutor(_THREADS, "otlp-grpc")

    def start(self, address: str) -> int:
        """The port. Raises RuntimeError when the address cannot be had."""
        options = [
            ("grpc.max_receive_message_length", self._bytes_max),
            ("grpc.max_metadata_size", 16_384),
            ("grpc.so_reuseport", 0),
            ("grpc.max_concurrent_streams", _AT_ONCE),
        ]
        self._server = grpc.server(self._workers, [_Handlers(self)], options=options, maximum_concurrent_rpcs=_AT_ONCE)
        port = self._server.add_insecure_port(address)
        if not port:
            raise RuntimeError("the address cannot be had")
        self._server.start()
        return port

    def stop(self) -> None:
        self._server.stop(2.0).wait()
        self._workers.shutdown(wait=False)

    def export(self, signal: Signal, body: bytes, context: Any) -> bytes:
        """In one of gRPC's threads."""
        from seamline.observe.otlp.receiver import success

        if not self._room():
            self._exhausted(context)
        try:
            taken = self._thread.submit(self._receiver.take, signal, "protobuf", "", body).result(_TAKE_S)
        except MalformedError as error:
            self._receiver.refused += 1
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except TooMuchError as error:
            self._receiver.refused += 1
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))  # to come again would not help
        except TimeoutError:
            self._exhausted(context)
        else:
            self._loop.call_soon_threadsafe(self._receiver.hand_on, taken)
            return success(signal, "protobuf", taken)
        raise AssertionError("abort raises")

    def _exhausted(self, context: Any) -> None:
        self._receiver.refused += 1
        message = "more came than can be written down"
        head = protobuf.write(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message))
        details = b"%b\x1a%c%b" % (head, len(_RETRY_INFO), _RETRY_INFO)
        context.set_trailing_metadata((("grpc-status-details-bin", details),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, message)


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, server: GrpcServer) -> None:
        self._server = server

    def service(self, handler_call_details: Any) -> Any:
        signal = _METHODS.get(handler_call_details.method)
        if signal is None:
            return None
        return cast("Any", grpc.unary_unary_rpc_method_handler(functools.partial(self._server.export, signal)))
