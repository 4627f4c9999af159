"""Clients that break the rules of the mesh port: the server answers or closes, forgets nothing, and goes on serving."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.mesh.rig import Rig, Stock, StockService, rig

from seamline.kernel.wire import frames
from seamline.kernel.wire.frames import CallHead
from seamline.mesh.balance import Endpoint
from seamline.mesh.mesh import Mesh
from seamline.mesh.refusals import Quiet


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig(tmp_path) as it:
        yield it


class Raw:
    """A connection over which a test sends what it likes, as the proven module ``orders``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, made: Rig, endpoint: Endpoint, alpn: str = frames.ALPN) -> Raw:
        identity = made.identity("orders")
        context = identity.client_context("orders", alpn)
        reader, writer = await asyncio.open_connection(
            endpoint.host, endpoint.port, ssl=context, server_hostname=identity.server_name("stock")
        )
        return cls(reader, writer)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def frame(self) -> tuple[int, int, bytes]:
        async with asyncio.timeout(30):
            header = await self.reader.readexactly(frames.HEADER_BYTES)
            length, kind, stream = frames.HEADER.unpack(header)
            return kind, stream, await self.reader.readexactly(length)

    async def closed_by_peer(self) -> bool:
        async with asyncio.timeout(30):
            try:
                while await self.reader.read(65_536):
                    pass
            except (ConnectionError, ssl.SSLError):
                return True
            return self.reader.at_eof()

    def close(self) -> None:
        self.writer.transport.abort()


def call(stream: int, sku: str = "mug", method: str = "Stock.take", timeout_ms: int = 5000) -> bytes:
    return frames.call_frame(stream, CallHead(method, timeout_ms), json.dumps({"sku": sku}).encode())


async def still_serves(made: Rig, endpoint: Endpoint) -> None:
    """A well-behaved caller is served."""
    client = made.mesh("orders")
    client.set_endpoints({"stock": [endpoint]})
    assert await client.stub(Stock, "orders").take("ok") == "okx1"


async def test_bytes_that_are_no_frames_close_the_connection(made: Rig):
    """An unknown type ends that connection, and nobody else's."""
    _, endpoint = await made.serve(StockService())
    raw = await Raw.open(made, endpoint)
    raw.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 3)
    assert await raw.closed_by_peer()
    raw.close()
    await still_serves(made, endpoint)


async def test_random_bytes_never_hurt_the_server(made: Rig):
    """Two hundred connections of garbage, half of them beginning with a valid call; the server goes on serving."""
    server, endpoint = await made.serve(StockService())
    lot = random.Random(7)
    for number in range(200):
        raw = await Raw.open(made, endpoint)
        if number % 2:
            raw.send(call(1))
            raw.send(bytes(lot.choice([lot.randrange(256), 0, 1, 2]) for _ in range(lot.randrange(400))))
        else:
            raw.send(lot.randbytes(lot.randrange(400)))
        raw.close()
    await still_serves(made, endpoint)
    async with asyncio.timeout(30):
        while server.port.inflight:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_an_oversized_call_is_refused_and_the_connection_lives(made: Rig):
    """The frame is skipped without being stored; the call gets an answer; the next call is served."""
    _, endpoint = await made.serve(StockService(), frame_bytes_max=10_000)
    raw = await Raw.open(made, endpoint)
    raw.send(frames.HEADER.pack(5_000_000, frames.CALL, 9))
    for _ in range(50):
        raw.send(b"z" * 100_000)
        await raw.writer.drain()
    kind, stream, payload = await raw.frame()
    assert (kind, stream) == (frames.FAULT, 9)
    assert b"longer than frame_bytes_max = 10000" in payload
    raw.send(call(10))
    assert await raw.frame() == (frames.RESULT, 10, b'"mugx1"')
    raw.close()


async def test_deep_nesting_is_refused(made: Rig):
    """A body of a hundred thousand open brackets is an invalid argument, not a crash."""
    _, endpoint = await made.serve(StockService())
    raw = await Raw.open(made, endpoint)
    deep = b'{"basket":{"lines":' + b"[" * 100_000
    raw.send(frames.call_frame(1, CallHead("Stock.grow", 5000), deep))
    kind, _, payload = await raw.frame()
    assert kind == frames.FAULT
    assert frames.read_error(payload).code == "invalid_argument"
    raw.close()
    await still_serves(made, endpoint)


async def test_calls_interleaved_and_cut_at_every_byte_are_served(made: Rig):
    """Three calls, sent one byte at a time, get their three answers."""
    _, endpoint = await made.serve(StockService())
    raw = await Raw.open(made, endpoint)
    for byte in call(1, "a") + call(2, "b") + call(3, "c"):
        raw.send(bytes([byte]))
        await asyncio.sleep(0)
    answers = [await raw.frame() for _ in range(3)]
    assert answers == [(frames.RESULT, n, f'"{sku}x1"'.encode()) for n, sku in ((1, "a"), (2, "b"), (3, "c"))]
    raw.close()


async def test_a_client_that_stops_reading_is_not_buffered_for(made: Rig):
    """Answers of a megabyte to a client that reads none: the server stops taking its calls, and stays small."""
    service = StockService()
    server, endpoint = await made.serve(service)
    raw = await Raw.open(made, endpoint)
    raw.writer.transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    body = json.dumps({"data": "A" * 700_000}).encode()
    sent = 0
    for number in range(1, 200):
        raw.send(frames.call_frame(number, CallHead("Stock.blob", 60_000), body))
        sent = number
        try:
            async with asyncio.timeout(0.5):
                await raw.writer.drain()
        except TimeoutError:
            break
    assert sent < 150, "the server took every call although nothing was read"
    (connection,) = server.port.connections
    buffered = connection._transport.get_write_buffer_size()  # pyright: ignore[reportPrivateUsage]
    assert buffered < 30_000_000
    await still_serves(made, endpoint)
    raw.close()


async def test_a_stream_waits_for_its_reader(made: Rig):
    """A producer of ten million items stops when the reader's credit is spent."""
    service = StockService()
    _, endpoint = await made.serve(service, rules={"timeout_s": 60})
    raw = await Raw.open(made, endpoint)
    raw.send(frames.call_frame(1, CallHead("Stock.count", 60_000), b'{"upto":10000000}'))
    received = 0
    while received < frames.STREAM_CREDIT:
        _, _, payload = await raw.frame()
        received += len(payload) + frames.HEADER_BYTES
    await asyncio.sleep(0.1)
    produced = service.produced
    await asyncio.sleep(0.1)
    assert service.produced == produced < 60_000
    raw.send(frames.frame(frames.CREDIT, 1, frames.CREDIT_AMOUNT.pack(1000)))
    await raw.frame()
    raw.send(frames.frame(frames.CANCEL, 1))
    async with asyncio.timeout(30):
        while not service.closed:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    raw.close()


async def test_sending_beyond_the_credit_ends_the_connection(made: Rig):
    """A caller that floods a stream nobody reads is cut off."""
    service = StockService()
    service.gate = asyncio.Event()
    _, endpoint = await made.serve(service, rules={"timeout_s": 60})
    raw = await Raw.open(made, endpoint)

    raw.send(frames.call_frame(1, CallHead("Stock.double", 60_000), b"{}"))
    for _ in range(100):
        raw.send(frames.frame(frames.ITEM, 1, b"1" * 20_000))
    assert await raw.closed_by_peer()
    raw.close()
    service.gate.set()
    await still_serves(made, endpoint)


async def test_a_client_that_vanishes_stops_its_handlers(made: Rig):
    """Handlers of a connection that was lost are cancelled."""
    service = StockService()
    server, endpoint = await made.serve(service)
    raw = await Raw.open(made, endpoint)
    for number in range(1, 21):
        body = b'{"seconds":30}'
        raw.send(frames.call_frame(number, CallHead("Stock.dawdle", 60_000), body))
    async with asyncio.timeout(30):
        while server.port.inflight < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    raw.close()
    async with asyncio.timeout(30):
        while service.cancelled < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert server.port.inflight == 0


async def test_a_stream_number_used_twice_ends_the_connection(made: Rig):
    """Two calls with one number cannot be told apart."""
    service = StockService()
    service.gate = asyncio.Event()
    _, endpoint = await made.serve(service)
    raw = await Raw.open(made, endpoint)
    raw.send(call(5) + call(5))
    assert await raw.closed_by_peer()
    raw.close()


async def test_an_unknown_method_is_unimplemented(made: Rig):
    """A caller of another version learns that the method is not there."""
    _, endpoint = await made.serve(StockService())
    raw = await Raw.open(made, endpoint)
    raw.send(call(1, method="Stock.burn") + call(2, method="http:stock"))
    for stream in (1, 2):
        kind, number, payload = await raw.frame()
        assert (kind, number, frames.read_error(payload).code) == (frames.FAULT, stream, "unimplemented")
    raw.close()


async def test_refusals_are_audited(made: Rig):
    """A call against policy and a stranger's certificate leave their lines."""
    only_look = 'permit(principal == Module::"orders", action == Action::"Stock.look", resource == Module::"stock");'
    server, endpoint = await made.serve(StockService(), text=only_look)
    raw = await Raw.open(made, endpoint)
    raw.send(call(1))
    kind, _, payload = await raw.frame()
    assert (kind, frames.read_error(payload).code) == (frames.FAULT, "permission_denied")
    raw.close()
    await _knock_without_certificate(endpoint)
    async with asyncio.timeout(30):
        while len(lines := _audit(server)) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    denied, refused = lines
    assert (denied["decision"], denied["principal"], denied["action"]) == ("deny", "orders", "Stock.take")
    assert refused["decision"] == "refuse"


async def _knock_without_certificate(endpoint: Endpoint) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context)
        await reader.read()
        writer.transport.abort()
    except (ConnectionError, ssl.SSLError):
        pass


def _audit(server: Mesh) -> list[dict[str, str]]:
    assert server.audit is not None
    server.audit.flush()
    folder = Path(server.audit.path)
    return [json.loads(line) for line in folder.read_text().splitlines()] if folder.exists() else []


async def test_a_call_taken_back_in_the_same_packet_leaves_nothing(made: Rig):
    """CALL and CANCEL together, on a server that has not yet served: no place in the limit stays taken."""
    server, endpoint = await made.serve(StockService())
    raw = await Raw.open(made, endpoint)
    body = b'{"seconds":30}'
    for stream in range(1, 41):
        raw.send(
            frames.call_frame(stream, CallHead("Stock.dawdle", 60_000), body) + frames.frame(frames.CANCEL, stream)
        )
    raw.send(call(99))
    kind, stream, _ = await raw.frame()
    assert (kind, stream) == (frames.RESULT, 99)
    limit = server.services.entries["Stock.dawdle"].limit
    assert limit is not None
    async with asyncio.timeout(30):
        while limit.inflight:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert server.port.inflight == 0
    raw.close()


async def test_a_call_without_a_deadline_has_the_methods_own(made: Rig):
    """Nothing runs for ever because a caller of another kind said nothing of time."""
    service = StockService()
    _, endpoint = await made.serve(service, rules={"timeout_s": 0.2})
    raw = await Raw.open(made, endpoint)
    raw.send(frames.call_frame(1, CallHead("Stock.dawdle", 0), b'{"seconds":30}'))
    kind, _, payload = await raw.frame()
    assert (kind, frames.read_error(payload).code) == (frames.FAULT, "deadline_exceeded")
    service.gate = asyncio.Event()
    raw.send(frames.call_frame(2, CallHead("Stock.double", 0), b"{}"))
    kind, _, payload = await raw.frame()
    assert (kind, frames.read_error(payload).code) == (frames.FAULT, "deadline_exceeded")
    raw.close()


async def test_a_priority_out_of_range_is_nobodys_privilege(made: Rig):
    """Priority 99 is served as what the method's own rule says, and travels on as that."""
    _, endpoint = await made.serve(StockService())
    raw = await Raw.open(made, endpoint)
    for stream, priority in ((1, 99), (2, -7)):
        raw.send(frames.call_frame(stream, CallHead("Stock.take", 5000, priority), b'{"sku":"mug"}'))
        assert await raw.frame() == (frames.RESULT, stream, b'"mugx1"')
    raw.close()


async def test_answers_that_nobody_reads_are_not_kept_without_bound(made: Rig):
    """A hundred large answers for a peer that does not read: it is cut off, the others are served."""

    class Large(StockService):
        async def look(self, sku: str) -> str:
            await super().look(sku)
            return "x" * 90_000

    service = Large()
    service.gate = asyncio.Event()
    server, endpoint = await made.serve(service, frame_bytes_max=100_000, rules={"concurrency_adaptive": False})
    raw = await Raw.open(made, endpoint)
    raw.reader._transport.pause_reading()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    for stream in range(1, 201):
        raw.send(call(stream, method="Stock.look", timeout_ms=60_000))
    async with asyncio.timeout(30):
        while server.port.inflight < 200:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        service.gate.set()
        while server.port.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    raw.close()
    await still_serves(made, endpoint)


async def test_knocking_does_not_fill_the_log(made: Rig, caplog: pytest.LogCaptureFixture):
    """Thirty strangers in a row are a line or two, which says how many they stand for."""
    _, endpoint = await made.serve(StockService())
    for _ in range(30):
        await _knock_without_certificate(endpoint)
    assert 1 <= sum("refused a connection" in record.message for record in caplog.records) < 15


def test_what_was_left_unsaid_is_said_with_the_next(caplog: pytest.LogCaptureFixture):
    """One line a second, with the number of those in between."""
    now = [10.0]
    quiet = Quiet(1.0, lambda: now[0])
    for _ in range(5):
        quiet.warning("no")
    now[0] = 11.5
    quiet.warning("no")
    assert [record.message for record in caplog.records] == ["no", "no (and 4 more like it)"]
