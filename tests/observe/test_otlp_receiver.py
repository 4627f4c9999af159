"""What comes over HTTP is answered as OTLP wants it, and nobody who attacks takes anything from the others."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import socket
import subprocess
import sys
import time
import zlib
from contextlib import ExitStack
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from tests.observe.otlp_rig import JSON, PROTOBUF, Attacked, Place, place, until

from seamline.kernel.settings.observe import ObserveSettings
from seamline.observe.otlp import OtlpReceiver
from seamline.observe.otlp import reading as reading_module
from seamline.observe.otlp.errors import OtlpListenError
from seamline.observe.records import Batch

MIB = 1024 * 1024


def export(name: str = "work", service: str = "shop", **more: Any) -> bytes:
    request = ExportTraceServiceRequest()
    block = request.resource_spans.add()
    told = block.resource.attributes.add(key="service.name")
    told.value.string_value = service
    now = time.time_ns()
    block.scope_spans.add().spans.add(
        trace_id=b"\1" * 16, span_id=b"\2" * 8, name=name, kind=2, start_time_unix_nano=now,
        end_time_unix_nano=now + 5, **more,
    )  # fmt: skip
    return request.SerializeToString()


def as_json(name: str = "work") -> bytes:
    span = {"traceId": "01" * 16, "spanId": "02" * 8, "name": name, "startTimeUnixNano": str(time.time_ns())}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()


async def still_answers(here: Place, name: str = "after") -> None:
    """Somebody else is served as if nothing had been."""
    before = len(here.spans)
    answer = await here.post("/v1/traces", export(name))
    assert (answer.status, answer.body) == (200, b"")
    assert [span.name for span in here.spans[before:]] == [name]


async def test_the_answer_has_the_encoding_of_the_request():
    """An export that is taken whole is answered with an empty message in its own encoding."""
    async with place() as here:
        answer = await here.post("/v1/traces", export())
        assert (answer.status, answer.headers["content-type"], answer.body) == (200, PROTOBUF, b"")
        answer = await here.post("/v1/traces", as_json(), JSON + "; charset=utf-8")
        assert (answer.status, answer.headers["content-type"], answer.body) == (200, JSON, b"{}")
        assert [span.name for span in here.spans] == ["work", "work"]
        assert here.receiver.accepted == 2


async def test_an_empty_export_is_taken():
    """A request with nothing in it is a success, and stores nothing."""
    async with place() as here:
        for path in ("/v1/traces", "/v1/logs", "/v1/metrics"):
            assert (await here.post(path, b"")).status == 200
            assert (await here.post(path, b"{}", JSON)).status == 200
        assert here.taken == []


@pytest.mark.parametrize("coding", ["gzip", "deflate", "x-gzip", "identity"])
async def test_packed_bodies(coding: str):
    """The content codings that collectors use."""
    packed = {"deflate": zlib.compress, "identity": bytes}.get(coding, gzip.compress)(export())
    async with place() as here:
        assert (await here.post("/v1/traces", packed, content_encoding=coding)).status == 200
        assert here.spans[0].name == "work"


async def test_partial_success():
    """What cannot be kept is counted in the answer, which is still a success: it is not sent again."""
    request = ExportTraceServiceRequest.FromString(export())
    request.resource_spans[0].scope_spans[0].spans.add(name="no id")
    async with place() as here:
        answer = await here.post("/v1/traces", request.SerializeToString())
        told = ExportTraceServiceResponse.FromString(answer.body).partial_success
        assert (answer.status, told.rejected_spans) == (200, 1)
        assert "traceId" in told.error_message
        answer = await here.post("/v1/traces", b'{"resourceSpans":[{"scopeSpans":[{"spans":[{}]}]}]}', JSON)
        assert json.loads(answer.body)["partialSuccess"]["rejectedSpans"] == "1"
        assert here.receiver.rejected == 2


@pytest.mark.parametrize(
    ("path", "body", "kind", "headers", "method", "status"),
    [
        ("/v1/traces", b"\xff\xff", PROTOBUF, {}, "POST", 400),
        ("/v1/traces", b"{", JSON, {}, "POST", 400),
        ("/v1/traces", b'{"resourceSpans":3}', JSON, {}, "POST", 400),
        ("/v1/traces", b'{"resourceSpans":' + b"[" * 500_000, JSON, {}, "POST", 400),
        ("/v1/traces", b'{"x":' + b'{"a":' * 200_000, JSON, {}, "POST", 400),
        ("/v1/traces", b'{"resourceSpans":[{"scopeSpans":[{"scope":{"name":"\xff"}}]}]}', JSON, {}, "POST", 400),
        ("/v1/traces", b"not gzip", PROTOBUF, {"content_encoding": "gzip"}, "POST", 400),
        ("/v1/traces", gzip.compress(b"x" * 99, mtime=0)[:-9], PROTOBUF, {"content_encoding": "gzip"}, "POST", 400),
        ("/v1/traces", b"", PROTOBUF, {"content_encoding": "br"}, "POST", 415),
        ("/v1/traces", b"", "text/plain", {}, "POST", 415),
        ("/v1/traces", b"", "", {}, "POST", 415),
        ("/v1/traces", b"", PROTOBUF, {"origin": "http://127.0.0.1:4318"}, "POST", 403),
        ("/v1/traces", b"", PROTOBUF, {"sec_fetch_site": "same-origin"}, "POST", 403),
        ("/v1/profiles", b"", PROTOBUF, {}, "POST", 404),
        ("/", b"", PROTOBUF, {}, "POST", 404),
        ("/v1/traces", b"", PROTOBUF, {}, "GET", 405),
        ("/v1/traces", b"", PROTOBUF, {}, "OPTIONS", 405),
        ("/v1/traces", b"x" * (4 * MIB + 1), PROTOBUF, {}, "POST", 413),
        ("/v1/traces", b"\x0a\x00" * (MIB + 1), PROTOBUF, {}, "POST", 413),
        ("/v1/traces", b'{"resourceSpans":[' + b"{}," * MIB + b"{}]}", JSON, {}, "POST", 413),
    ],
)  # fmt: skip
async def test_refusals(path: str, body: bytes, kind: str, headers: dict[str, str], method: str, status: int):
    """Each mistake and attack has its status; the next sender is served."""
    async with place() as here:
        answer = await here.post(path, body, kind, method=method, **headers)
        assert answer.status == status
        assert here.taken == []
        assert here.receiver.refused == 1
        if kind != PROTOBUF:
            assert set(json.loads(answer.body)) == {"code", "message"}
        await still_answers(here)


async def test_a_body_in_chunks_is_bounded_too():
    """Without a content-length the bytes are counted as they come."""
    async with place(bytes_max=100_000) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(
            b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
            b"transfer-encoding: chunked\r\n\r\n" + (b"4000\r\n" + b"x" * 0x4000 + b"\r\n") * 10
        )
        assert (await reader.readline()).split()[1] == b"413"
        writer.close()
        await still_answers(here)


async def test_whoever_comes_while_the_store_is_full_comes_again():
    """429 with Retry-After before the body is read, and 200 once there is room."""
    async with place() as here:
        here.full = True
        answer = await here.post("/v1/traces", export())
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        here.full = False
        await still_answers(here)


async def test_a_foreign_service_does_not_get_the_name_of_a_module():
    """One that says it is ``orders`` is marked; who calls ``orders`` is not."""
    async with place(own=["orders"]) as here:
        await here.post("/v1/traces", export(service="orders"))
        assert here.spans[0].module == "otlp:orders"
        assert here.spans[0].resource["service.name"] == "orders"


async def test_slow_bodies_give_way():
    """Bodies that dawdle hold no more than the bound; when room is needed the oldest is refused, and others go on."""
    async with place(bytes_max=MIB) as here:
        here.receiver.bodies = bodies = reading_module.Bodies(MIB, 4 * MIB)
        head = (
            b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: %d\r\n\r\n"
        )
        slow: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        for _ in range(12):
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(head % MIB + b"x" * (MIB - 1))
            await writer.drain()
            slow.append((reader, writer))
        first = await asyncio.wait_for(slow[0][0].readline(), 10)
        assert first.split()[1] == b"429"
        await still_answers(here)
        assert bodies.bytes_held <= 4 * MIB
        for _, writer in slow:
            writer.close()
        await until(lambda: bodies.bytes_held == 0)


async def test_connections_leave_files_to_others(monkeypatch: pytest.MonkeyPatch):
    """Clients get at most half of the files that the process may open, the next is told that there is no room."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (200, 200))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    async with place() as here:
        with ExitStack() as opened:
            for _ in range(100):
                opened.enter_context(socket.create_connection(("127.0.0.1", here.port), 10))
            await until(lambda: here.receiver.connections == 100)
            assert (await here.post("/v1/traces", b"")).status == 503
        await until(lambda: here.receiver.connections == 0)
        await still_answers(here)


async def test_a_body_that_takes_too_long(monkeypatch: pytest.MonkeyPatch):
    """A body that drips in is refused in the end, however steadily it drips."""
    monkeypatch.setattr(reading_module, "BODY_TIMEOUT_S", 0.3)
    async with place() as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        writer.write(
            b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{"
        )
        assert (await asyncio.wait_for(reader.readline(), 10)).split()[1] == b"408"
        writer.close()
        await still_answers(here)
        assert here.receiver.bodies.bytes_held == 0


HALVES = (
    b"",
    b"POST /v1/traces HTTP/1.1\r\nhost:",
    b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\ncontent-type: application/json\r\n\r\n{",
)


async def test_a_thousand_connections():
    """A thousand clients that connect, send half a head or half a body, and stay: others are served."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2500:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    async with place() as here:
        with ExitStack() as opened:
            for number in range(1000):
                client = opened.enter_context(socket.create_connection(("127.0.0.1", here.port), 10))
                client.sendall(HALVES[number % 3])
                if number % 50 == 49:
                    await until(lambda at_least=number - 50: here.receiver.connections > at_least)
            await until(lambda: here.receiver.connections >= 1000)
            await still_answers(here)


def bomb(size: int) -> bytes:
    """So much, packed; one piece is packed and repeated, so the checksum at the end, which nobody gets to, is wrong."""
    coder = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b"\0" * MIB
    first, piece = (coder.compress(block) + coder.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + piece * (size // MIB - 1) + coder.flush()


def test_bombs_cost_no_memory():
    """A gigabyte of zeros in a megabyte, and what is small on the wire and large as objects: refused or taken in part,
    with never more than 200 MiB above the start, and the receiver goes on."""
    server = Attacked()
    try:
        assert server.post(export()) == 200
        before = server.rss_mib()
        zeros = bomb(1024 * MIB)
        assert 0.9 * MIB < len(zeros) < 1.2 * MIB
        attacks: list[tuple[bytes, str, str, int]] = [
            (zeros, PROTOBUF, "gzip", 413),
            (zeros, JSON, "gzip", 413),
            (zlib.compress(b"\0" * 100 * MIB), PROTOBUF, "deflate", 413),
            (gzip.compress(b"\x0a\x00" * 8 * MIB), PROTOBUF, "gzip", 413),
            (gzip.compress(b'{"resourceSpans":[' + b"{}," * (5 * MIB) + b"{}]}"), JSON, "gzip", 413),
            (gzip.compress(b"[" * 15 * MIB), JSON, "gzip", 400),
            (gzip.compress(nested(b"\x4a\x00", 7 * MIB)), PROTOBUF, "gzip", 413),
            (gzip.compress(nested(b"\x4a\x06\x12\x04\x2a\x02\x0a\x00", MIB)), PROTOBUF, "gzip", 413),
        ]
        for body, kind, coding, status in attacks:
            assert server.post(body, kind, coding) == status
        assert server.post(export()) == 200
        assert server.peak_mib() - before < 200
    finally:
        assert server.end() >= 2


def nested(attribute: bytes, count: int) -> bytes:
    """A span with so many of these."""
    span = export_span() + attribute * count
    scope = b"\x12" + varint(len(span)) + span
    block = b"\x12" + varint(len(scope)) + scope
    return b"\x0a" + varint(len(block)) + block


def export_span() -> bytes:
    return ExportTraceServiceRequest.FromString(export()).resource_spans[0].scope_spans[0].spans[0].SerializeToString()


def varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def test_many_bombs_at_once():
    """Sixteen attackers at once: the memory stays bounded, and who asks meanwhile is answered."""
    server = Attacked()
    try:
        assert server.post(export()) == 200
        before = server.rss_mib()
        body = gzip.compress(b'{"resourceSpans":[' + b"{}," * 200_000 + b"{}]}")

        async def attack() -> list[int]:
            jobs = [asyncio.to_thread(server.post, body, JSON, "gzip") for _ in range(16)]
            return await asyncio.gather(*jobs, asyncio.to_thread(server.post, export()))

        assert asyncio.run(attack()) == [200] * 17
        assert server.peak_mib() - before < 200
    finally:
        assert server.end() == 2


async def test_an_address_that_is_taken_is_said():
    """The error names the address and the setting."""
    async with place() as here:
        second = OtlpReceiver(ObserveSettings(otlp_listen=f"127.0.0.1:{here.port}"), ignore)
        with pytest.raises(OtlpListenError) as failed:
            await second.start()
        assert f"127.0.0.1:{here.port}" in str(failed.value)
        assert "otlp_listen" in str(failed.value)
        await second.stop()


def ignore(_: Batch) -> None: ...


async def test_nowhere():
    """With an empty address nothing listens."""
    receiver = OtlpReceiver(ObserveSettings(otlp_listen=""), ignore)
    await receiver.start()
    assert receiver.address is None
    await receiver.stop()


def test_who_takes_nothing_loads_nothing():
    """Starting the receiver loads neither the decoders nor gRPC; the first request does."""
    code = (
        "import asyncio, sys\n"
        "PREFIXES = ('seamline.observe.otlp', 'grpc', 'google')\n"
        "from seamline.kernel.settings.observe import ObserveSettings\n"
        "from seamline.observe.otlp import OtlpReceiver\n"
        "async def main():\n"
        "    receiver = OtlpReceiver(ObserveSettings(otlp_listen='127.0.0.1:0'), lambda batch: None)\n"
        "    await receiver.start()\n"
        "    print(sorted(name for name in sys.modules if name.startswith(PREFIXES)))\n"
        "    await receiver.stop()\n"
        "asyncio.run(main())\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    for heavy in ("messages", "protobuf", "mapping", "decoding", "telling", "senders", "grpc_server"):
        assert f"seamline.observe.otlp.{heavy}" not in out
    assert "'grpc" not in out
    assert "'google" not in out
