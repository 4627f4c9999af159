"""The caller's side of the JSON wire: for ``wire = "http"``, where a mesh at layer 7 must read the traffic."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from seamline.kernel.wire.http1_client import HttpPool, HttpResponse
from seamline.mesh.connect import END_STREAM, EnvelopeError, EnvelopeReader, envelope, read_error_json
from seamline.mesh.identity import explain_tls_failure
from seamline.mesh.outcome import deadline_exceeded, error_of
from seamline.module.context import NO_DEADLINE, CallContext
from seamline.module.errors import InternalError, Unavailable

if TYPE_CHECKING:
    from seamline.kernel.settings import MeshSettings
    from seamline.mesh.balance import Endpoint
    from seamline.mesh.edge import Edge
    from seamline.mesh.identity import WorkloadIdentity

_ALPN = "http/1.1"
_CONNECTIONS_MAX = 64
_PRIORITY_NAMES = ("sheddable", "normal", "critical")


class HttpChannel:
    """A channel that speaks Connect over HTTP/1.1."""

    def __init__(
        self, identity: WorkloadIdentity, settings: MeshSettings, app: str, caller: str, callee: str, endpoint: Endpoint
    ) -> None:
        self._app = app
        self._callee = callee
        self._endpoint = endpoint
        self._bytes_max = settings.frame_bytes_max
        self._pool = HttpPool(
            endpoint.host,
            endpoint.port,
            identity.client_context(caller, _ALPN),
            identity.server_name(callee),
            _CONNECTIONS_MAX,
        )

    async def ready(self, deadline: float) -> None:
        """Connections are opened by the requests."""

    async def unary(self, edge: Edge, body: bytes, context: CallContext, upstream: AsyncIterator[Any] | None) -> bytes:
        if upstream is not None:
            messages = [m async for m in self._streamed(edge, body, context, upstream)]
            if len(messages) != 1:
                raise InternalError(f"{edge.name} answered with {len(messages)} messages instead of one")
            return messages[0]
        response = await self._request(edge, body, context, b"application/json")
        data = await response.read_all(self._bytes_max)
        if response.status == 200:
            return data
        raise error_of(read_error_json(_json(data), response.status), edge.name, edge.faults)

    def stream(
        self, edge: Edge, body: bytes, context: CallContext, upstream: AsyncIterator[Any] | None
    ) -> AsyncIterator[bytes]:
        return self._streamed(edge, body, context, upstream)

    async def _streamed(
        self, edge: Edge, body: bytes, context: CallContext, upstream: AsyncIterator[Any] | None
    ) -> AsyncIterator[bytes]:
        request: bytes | AsyncIterator[bytes] = envelope(body)
        if upstream is not None:
            assert edge.spec.item is not None
            request = _enveloped(body, upstream, edge.spec.item.encode)
        response = await self._request(edge, request, context, b"application/connect+json")
        reader = EnvelopeReader(self._bytes_max)
        try:
            if response.status != 200:
                data = await response.read_all(self._bytes_max)
                raise error_of(read_error_json(_json(data), response.status), edge.name, edge.faults)
            while chunk := await response.read():
                for flags, message in reader.feed(chunk):
                    if flags & END_STREAM:
                        closing: Any = _json(message)
                        if isinstance(closing, dict) and "error" in closing:
                            raise error_of(read_error_json(closing["error"]), edge.name, edge.faults)  # pyright: ignore[reportUnknownArgumentType]
                        return
                    yield message
        except EnvelopeError as error:
            raise InternalError(f"{edge.name} answered with something else than envelopes: {error}") from None
        except OSError as error:
            raise Unavailable(f"the connection to module {self._callee!r} was lost: {error}") from None
        finally:
            await response.aclose()
        raise Unavailable(f"the stream from module {self._callee!r} ended without its last envelope")

    async def _request(
        self, edge: Edge, body: bytes | AsyncIterator[bytes], context: CallContext, content_type: bytes
    ) -> HttpResponse:
        left = context.deadline - monotonic()
        headers = [
            (b"content-type", content_type),
            (b"connect-protocol-version", b"1"),
            (b"seamline-priority", _PRIORITY_NAMES[context.priority].encode()),
        ]
        if context.deadline != NO_DEADLINE:
            headers.append((b"connect-timeout-ms", str(max(int(left * 1000), 1)).encode()))
        if context.trace is not None:
            headers.append((b"traceparent", context.trace.to_traceparent().encode()))
        if context.idempotency_key is not None:
            headers.append((b"idempotency-key", context.idempotency_key.encode()))
        target = f"/{self._app}.{edge.spec.contract}/{edge.spec.name}".encode()
        timeout_s = None if context.deadline == NO_DEADLINE else max(left, 0.001)
        try:
            return await self._pool.request("POST", target, headers, body, timeout_s=timeout_s)
        except TimeoutError:
            raise deadline_exceeded(edge.name) from None
        except OSError as error:  # ssl.SSLError is one
            reason = explain_tls_failure(error)
            failure = Unavailable(
                f"module {self._callee!r} at {self._endpoint.address} could not be reached: {reason}",
                "Is its workload running? `seamline status` tells.",
            )
            failure.started = not isinstance(error, ConnectionRefusedError)
            raise failure from None

    async def close(self, timeout_s: float) -> None:  # noqa: ARG002  # requests under way keep their connections
        await self._pool.close()


async def _enveloped(body: bytes, upstream: AsyncIterator[Any], encode: Any) -> AsyncIterator[bytes]:
    yield envelope(body)
    async for item in upstream:
        yield envelope(encode(item))


def _json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None
