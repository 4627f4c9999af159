"""The caller's side of the JSON wire: for ``wire = "http"``, where a mesh at layer 7 must read the traffic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from seamline.kernel.wire.http1_client import HttpClientError, HttpPool, HttpResponse
from seamline.mesh.connect import END_STREAM, EnvelopeError, EnvelopeReader, envelope, read_error_json
from seamline.mesh.connection import too_long
from seamline.mesh.identity import explain_tls_failure
from seamline.mesh.outcome import deadline_exceeded, error_of
from seamline.module.context import NO_DEADLINE, CallContext
from seamline.module.errors import InternalError, Unavailable, Unreachable

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
        self._inflight = 0
        self._shut = False
        self._pool = HttpPool(
            endpoint.host,
            endpoint.port,
            identity.client_context(caller, _ALPN),
            identity.server_name(callee),
            _CONNECTIONS_MAX,
        )

    @property
    def open(self) -> bool:
        return not self._shut

    async def ready(self, deadline: float) -> None:  # noqa: ARG002  # the channel's signature
        """Connections are opened by the requests."""
        if self._shut:
            error = Unavailable(f"module {self._callee!r} has moved from {self._endpoint.address}")
            error.started = False
            raise error

    async def unary(
        self, edge: Edge, body: bytes, context: CallContext, upstream: AsyncIterator[bytes] | None
    ) -> bytes:
        if upstream is not None:
            async with aclosing(self.stream(edge, body, context, upstream)) as messages:
                only = await anext(messages, None)
                if only is None or await anext(messages, None) is not None:
                    raise InternalError(f"{edge.name} answered with none or many messages instead of one")
                return only
        self._inflight += 1
        try:
            response = await self._request(edge, body, context, b"application/json")
            data = await self._whole(edge, response)
        finally:
            self._inflight -= 1
        if response.status == 200:
            return data
        raise error_of(read_error_json(_json(data), response.status), edge.name, edge.faults)

    async def _whole(self, edge: Edge, response: HttpResponse) -> bytes:
        length = response.header(b"content-length")
        if length is not None and length.isdigit() and int(length) > self._bytes_max:
            await response.aclose()
            raise too_long(edge.name, int(length))
        try:
            return await response.read_all(self._bytes_max)
        except TimeoutError:
            raise deadline_exceeded(edge.name) from None
        except OSError as error:
            raise Unavailable(f"the connection to module {self._callee!r} was lost: {error}") from None

    async def stream(
        self, edge: Edge, body: bytes, context: CallContext, upstream: AsyncIterator[bytes] | None
    ) -> AsyncGenerator[bytes]:
        self._inflight += 1
        try:
            async with aclosing(self._streamed(edge, body, context, upstream)) as messages:
                async for message in messages:
                    yield message
        finally:
            self._inflight -= 1

    async def _streamed(
        self, edge: Edge, body: bytes, context: CallContext, upstream: AsyncIterator[bytes] | None
    ) -> AsyncGenerator[bytes]:
        request: bytes | AsyncIterator[bytes] = envelope(body)
        if upstream is not None:
            request = _enveloped(body, upstream)
        response = await self._request(edge, request, context, b"application/connect+json")
        reader = EnvelopeReader(self._bytes_max)
        try:
            if response.status != 200:
                data = await self._whole(edge, response)
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
        except TimeoutError:
            raise deadline_exceeded(edge.name) from None
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
        if context.origin is not None:
            headers += context.origin.at(context.span_id()).to_headers()
        if context.idempotency_key is not None:
            headers.append((b"idempotency-key", context.idempotency_key.encode()))
        proof = edge.proof(context)
        if proof is not None:
            headers.append((b"seamline-subject", proof.encode()))
        target = f"/{self._app}.{edge.spec.contract}/{edge.spec.name}".encode()
        timeout_s = None if context.deadline == NO_DEADLINE else max(left, 0.001)
        try:
            return await self._pool.request(
                "POST", target, headers, body, timeout_s=timeout_s, replayable=edge.spec.idempotent, duplex=True
            )
        except TimeoutError:
            raise deadline_exceeded(edge.name) from None
        except OSError as error:  # ssl.SSLError is one
            reason = explain_tls_failure(error)
            sent = error.sent if isinstance(error, HttpClientError) else True
            raise (Unavailable if sent else Unreachable)(
                f"module {self._callee!r} at {self._endpoint.address} could not be reached: {reason}",
                "Is its workload running? `seamline status` tells.",
            ) from None

    async def close(self, timeout_s: float) -> None:
        self._shut = True
        end = monotonic() + timeout_s
        try:
            while self._inflight and monotonic() < end:  # noqa: ASYNC110  # many to wait for
                await asyncio.sleep(0.01)
        finally:
            await self._pool.close()


async def _enveloped(body: bytes, upstream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield envelope(body)
    async for item in upstream:
        yield envelope(item)


def _json(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None
